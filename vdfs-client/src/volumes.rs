//! The ways to the volumes, by chain.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::RwLock;
use vdfs_net::{Carrier, Connector, Target, address};
use vdfs_proto::handshake::Role;
use vdfs_proto::{ChainId, ChainTable, Epoch, MemberState, VolumeId};

/// The newest chain table this client has seen, with a carrier for each volume in it.
pub(crate) struct Volumes {
    connector: Arc<dyn Connector>,
    /// Where the master is: what it sees on its loopback is there.
    master: IpAddr,
    routes: RwLock<Arc<Routes>>,
    /// Held by the one who fetches a newer table.
    pub(crate) fetching: tokio::sync::Mutex<()>,
}

struct Routes {
    table: ChainTable,
    carriers: HashMap<VolumeId, Arc<dyn Carrier>>,
}

/// The first member of each chain of one table.
pub(crate) struct HeadVolumes {
    /// Of the table.
    pub(crate) version: u64,
    routes: Arc<Routes>,
}

impl HeadVolumes {
    pub(crate) fn of(&self, chain: ChainId) -> Option<VolumeId> {
        let members = &self.routes.table.chain(chain)?.members;
        members.first().map(|member| member.volume)
    }

    pub(crate) fn carrier(&self, volume: VolumeId) -> Option<Arc<dyn Carrier>> {
        self.routes.carriers.get(&volume).cloned()
    }
}

/// Whom to send a request for a chain, and under which epoch.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) epoch: Epoch,
    pub(crate) carrier: Arc<dyn Carrier>,
}

impl Volumes {
    pub(crate) fn new(connector: Arc<dyn Connector>, master: IpAddr, table: ChainTable) -> Self {
        let routes = Routes::new(&*connector, master, table);
        Volumes {
            connector,
            master,
            routes: RwLock::new(Arc::new(routes)),
            fetching: tokio::sync::Mutex::new(()),
        }
    }

    /// Takes `table` unless a newer one is known: nobody goes back to an older epoch.
    pub(crate) fn install(&self, table: ChainTable) {
        if table.version <= self.version() {
            return;
        }
        let routes = Arc::new(Routes::new(&*self.connector, self.master, table));
        let mut current = self.routes.write();
        if routes.table.version > current.table.version {
            *current = routes;
        }
    }

    pub(crate) fn version(&self) -> u64 {
        self.routes.read().table.version
    }

    pub(crate) fn table(&self) -> ChainTable {
        self.routes.read().table.clone()
    }

    /// The head of a chain; `None` if the chain has no member that this client knows.
    pub(crate) fn head(&self, chain: ChainId) -> Option<Route> {
        self.member(chain, 0)
    }

    /// The volume that a write to the chain goes to.
    pub(crate) fn head_volume(&self, chain: ChainId) -> Option<VolumeId> {
        let routes = self.routes.read();
        let members = &routes.table.chain(chain)?.members;
        members.first().map(|member| member.volume)
    }

    /// The heads of all chains, as one table has them.
    pub(crate) fn heads(&self) -> HeadVolumes {
        let routes = self.routes.read().clone();
        HeadVolumes {
            version: routes.table.version,
            routes,
        }
    }

    /// One of the members that serve, another one with each `turn`.
    pub(crate) fn reader(&self, chain: ChainId, turn: usize) -> Option<Route> {
        self.member(chain, turn)
    }

    fn member(&self, chain: ChainId, turn: usize) -> Option<Route> {
        let routes = self.routes.read();
        let chain = routes.table.chain(chain)?;
        let serving = || {
            chain
                .members
                .iter()
                .filter(|member| member.state == MemberState::Serving)
        };
        let member = serving().nth(turn.checked_rem(serving().count())?)?;
        Some(Route {
            epoch: chain.epoch,
            carrier: routes.carriers.get(&member.volume)?.clone(),
        })
    }
}

impl fmt::Debug for Volumes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Volumes(table {})", self.version())
    }
}

impl Routes {
    fn new(connector: &dyn Connector, master: IpAddr, table: ChainTable) -> Self {
        let carriers = table.volumes.iter().map(|volume| {
            let target = Target {
                addr: address::named_by(master, volume.addr),
                role: Role::Volume,
                node: Some(volume.node.clone()),
            };
            (volume.id, connector.carrier(&target))
        });
        Routes {
            carriers: carriers.collect(),
            table,
        }
    }
}
