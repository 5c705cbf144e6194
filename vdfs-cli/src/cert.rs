//! `vdfs cert`: identities for other machines.

use vdfs_net::{Identity, Issuer};
use vdfs_program::Failure;
use vdfs_proto::Timestamp;
use vdfs_proto::handshake::Role;

use crate::args::{CertArgs, CertCommand, CertIssueArgs, CertRole, CertShowArgs};
use crate::calendar::utc;
use crate::output::Output;

pub(crate) fn run(args: &CertArgs) -> Result<(), Failure> {
    match &args.command {
        CertCommand::Issue(args) => issue(args),
        CertCommand::Show(args) => show(args),
    }
}

fn issue(args: &CertIssueArgs) -> Result<(), Failure> {
    let issuer = Issuer::open(&args.ca.join("ca")).map_err(Failure::of)?;
    let role = match args.role {
        CertRole::Volume => Role::Volume,
        CertRole::Client => Role::Client,
        CertRole::Admin => Role::Admin,
    };
    let issued = match args.renew {
        true => issuer.renew(role, &args.name, &args.out),
        false => issuer.issue(role, &args.name, &args.out),
    };
    say(&issued.map_err(Failure::of)?)
}

fn show(args: &CertShowArgs) -> Result<(), Failure> {
    say(&Identity::load(&args.dir).map_err(Failure::of)?)
}

/// `volume v1 of cluster CLUSTER, valid until 2036-11-17 08:40:12 UTC`
fn say(identity: &Identity) -> Result<(), Failure> {
    let (role, node) = (identity.role().as_str(), identity.node());
    let (cluster, until) = (
        identity.cluster(),
        utc(Timestamp::from_system(identity.not_after())),
    );
    let mut output = Output::open();
    output.line(format!(
        "{role} {node} of cluster {cluster}, valid until {until} UTC"
    ))?;
    output.finish()
}
