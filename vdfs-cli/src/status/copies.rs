//! Chains by how many copies they keep.

use vdfs_proto::Copies;
use vdfs_proto::meta::StatusReport;

/// The groups of one number of copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// That directories ask for; `None`: as many as the filesystem keeps.
    pub(crate) copies: Option<Copies>,
    pub(crate) replicas: u32,
    pub(crate) chains: u32,
    /// Of these, those with fewer copies.
    pub(crate) short: u32,
}

/// The filesystem's own first.
pub(crate) fn kinds_of_copies(report: &StatusReport) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = Vec::new();
    for group in &report.groups {
        let known = kinds.iter_mut().find(|kind| kind.copies == group.copies);
        match known {
            Some(kind) => {
                kind.chains += group.chains;
                kind.short += group.short;
            }
            None => kinds.push(Kind {
                copies: group.copies,
                replicas: group.copies.map_or(report.replicas, Copies::count),
                chains: group.chains,
                short: group.short,
            }),
        }
    }
    kinds.sort_by_key(|kind| kind.copies);
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::report;
    use vdfs_proto::meta::GroupStatus;

    #[test]
    fn kinds_of_copies_add_groups_up_that_keep_the_same() {
        let group = |copies: Option<u32>, chains, short| GroupStatus {
            copies: copies.and_then(|count| Copies::new(count).ok()),
            chains,
            short,
        };
        let mut report = report();
        report.replicas = 2;
        report.groups = vec![
            group(None, 256, 1),
            group(Some(3), 256, 0),
            group(Some(2), 256, 5),
            group(None, 256, 2),
        ];
        let kinds = kinds_of_copies(&report);
        let seen: Vec<(u32, u32, u32)> = kinds
            .iter()
            .map(|kind| (kind.replicas, kind.chains, kind.short))
            .collect();
        assert_eq!(seen, [(2, 512, 3), (2, 256, 5), (3, 256, 0)]);
    }
}
