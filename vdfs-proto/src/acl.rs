//! POSIX access control lists (acl(5)).
//!
//! An ACL is parsed from the bytes that the attributes `system.posix_acl_access` and
//! `system.posix_acl_default` carry, and is canonical from then on: one way to write it, whoever
//! has set it.
//!
//! | offset | bytes of the attribute |
//! |---|---|
//! | 0 | version, 2, as a little-endian `u32` |
//! | 4 + 8n | entry n: tag `u16`, permissions `u16`, id `u32` (all ones where the tag has none) |
//!
//! Invariant: every [`Acl`] has an owner, a group and others; named entries ascend by id, each id
//! once; whoever is named is bounded by a mask.

use serde::{Deserialize, Serialize};

use crate::limits::ACL_ENTRIES_MAX;
use crate::name::XattrName;
use crate::status::Status;

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const HEADER_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;
/// Id of entries that name nobody.
const NOBODY: u32 = u32::MAX;

const TAG_OWNER: u16 = 0x01;
const TAG_USER: u16 = 0x02;
const TAG_GROUP_OWNER: u16 = 0x04;
const TAG_GROUP: u16 = 0x08;
const TAG_MASK: u16 = 0x10;
const TAG_OTHER: u16 = 0x20;

/// What an ACL decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AclKind {
    /// Who may do what with the inode.
    Access,
    /// What is made in the directory gets this.
    Default,
}

impl AclKind {
    /// The kind that an attribute of this name holds.
    pub fn of_name(name: &[u8]) -> Option<AclKind> {
        match name {
            ACCESS => Some(AclKind::Access),
            DEFAULT => Some(AclKind::Default),
            _ => None,
        }
    }

    /// Under which attribute it is kept.
    pub fn name(self) -> XattrName {
        let name = match self {
            AclKind::Access => ACCESS,
            AclKind::Default => DEFAULT,
        };
        XattrName::new(name).expect("a good name")
    }
}

/// Some of read (4), write (2) and execute or search (1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Perms(u8);

impl Perms {
    pub const READ: Perms = Perms(4);
    pub const WRITE: Perms = Perms(2);
    pub const EXECUTE: Perms = Perms(1);
    const ALL: Perms = Perms(7);

    /// The triple of a mode that is shifted right by `shift`.
    pub fn of_mode(mode: u16, shift: u32) -> Perms {
        Perms((mode >> shift & 7) as u8)
    }

    #[must_use]
    pub fn and(self, other: Perms) -> Perms {
        Perms(self.0 | other.0)
    }

    pub fn include(self, wanted: Perms) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    fn within(self, bound: Perms) -> Perms {
        Perms(self.0 & bound.0)
    }

    fn parse(bits: u16) -> Result<Perms, Status> {
        match u8::try_from(bits) {
            Ok(bits @ 0..=7) => Ok(Perms(bits)),
            _ => Err(Status::Invalid),
        }
    }
}

/// Who asks, as far as an ACL is concerned.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    pub uid: u32,
    /// With the first one.
    pub groups: &'a [u32],
}

/// A named user or group with what it may.
type Named = (u32, Perms);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct Acl {
    owner: Perms,
    users: Vec<Named>,
    group_owner: Perms,
    groups: Vec<Named>,
    mask: Option<Perms>,
    other: Perms,
}

impl Acl {
    /// `None` if there is no entry, which means no ACL. `Invalid` for what is none, `TooBig` for
    /// more than [`ACL_ENTRIES_MAX`] entries.
    pub fn parse(bytes: &[u8]) -> Result<Option<Acl>, Status> {
        let (version, entries) = bytes
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(Status::Invalid)?;
        if u32::from_le_bytes(*version) != VERSION || entries.len() % ENTRY_BYTES != 0 {
            return Err(Status::Invalid);
        }
        let (entries, _) = entries.as_chunks::<ENTRY_BYTES>();
        match entries.len() {
            0 => Ok(None),
            1..=ACL_ENTRIES_MAX => Acl::of_entries(entries).map(Some),
            _ => Err(Status::TooBig),
        }
    }

    /// Entries come in the order of their tags, as the kernel has them; ids in any order.
    fn of_entries(entries: &[[u8; ENTRY_BYTES]]) -> Result<Acl, Status> {
        let mut rest = Entries { rest: entries };
        let acl = Acl {
            owner: rest.take_one(TAG_OWNER)?.ok_or(Status::Invalid)?,
            users: rest.take_named(TAG_USER)?,
            group_owner: rest.take_one(TAG_GROUP_OWNER)?.ok_or(Status::Invalid)?,
            groups: rest.take_named(TAG_GROUP)?,
            mask: rest.take_one(TAG_MASK)?,
            other: rest.take_one(TAG_OTHER)?.ok_or(Status::Invalid)?,
        };
        let names_somebody = !acl.users.is_empty() || !acl.groups.is_empty();
        if !rest.rest.is_empty() || (names_somebody && acl.mask.is_none()) {
            return Err(Status::Invalid);
        }
        Ok(acl)
    }

    /// What the attribute holds.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        let mut push = |tag: u16, id: u32, perms: Perms| {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(u16::from(perms.0).to_le_bytes());
            bytes.extend(id.to_le_bytes());
        };
        push(TAG_OWNER, NOBODY, self.owner);
        for (id, perms) in &self.users {
            push(TAG_USER, *id, *perms);
        }
        push(TAG_GROUP_OWNER, NOBODY, self.group_owner);
        for (id, perms) in &self.groups {
            push(TAG_GROUP, *id, *perms);
        }
        if let Some(mask) = self.mask {
            push(TAG_MASK, NOBODY, mask);
        }
        push(TAG_OTHER, NOBODY, self.other);
        bytes
    }

    /// Says no more than the bits of a mode.
    pub fn is_minimal(&self) -> bool {
        self.mask.is_none()
    }

    /// The nine bits that the mode shows: the group's triple is the mask's, if there is one.
    pub fn mode_bits(&self) -> u16 {
        let group = self.mask.unwrap_or(self.group_owner);
        u16::from(self.owner.0) << 6 | u16::from(group.0) << 3 | u16::from(self.other.0)
    }

    /// What chmod(2) makes of it: `mode_bits` are those of `mode` afterwards.
    #[must_use]
    pub fn with_mode(mut self, mode: u16) -> Acl {
        self.owner = Perms::of_mode(mode, 6);
        *self.group_class() = Perms::of_mode(mode, 3);
        self.other = Perms::of_mode(mode, 0);
        assert_eq!(self.mode_bits(), mode & 0o777, "the mode shows the ACL");
        self
    }

    /// The access ACL of what is made with `mode` in a directory with this default ACL: each class
    /// gets what both allow (acl(5), "object creation and default ACLs"). No umask counts.
    #[must_use]
    pub fn for_new(&self, mode: u16) -> Acl {
        let mut new = self.clone();
        new.owner = new.owner.within(Perms::of_mode(mode, 6));
        let class = new.group_class();
        *class = class.within(Perms::of_mode(mode, 3));
        new.other = new.other.within(Perms::of_mode(mode, 0));
        new
    }

    fn group_class(&mut self) -> &mut Perms {
        self.mask.as_mut().unwrap_or(&mut self.group_owner)
    }

    /// Whether `asker` may do what is `wanted` with an inode of this owner and group (acl(5),
    /// "access check algorithm"). The privileged are not asked about here.
    pub fn permits(&self, asker: Asker<'_>, (uid, gid): (u32, u32), wanted: Perms) -> bool {
        if asker.uid == uid {
            return self.owner.include(wanted);
        }
        let mask = self.mask.unwrap_or(Perms::ALL);
        let user = self.users.binary_search_by_key(&asker.uid, |named| named.0);
        if let Ok(at) = user {
            return self.users[at].1.within(mask).include(wanted);
        }
        let group_owner = (gid, self.group_owner);
        let all = self.groups.iter().chain(std::iter::once(&group_owner));
        let mut own = all
            .filter(|(group, _)| asker.groups.contains(group))
            .peekable();
        if own.peek().is_none() {
            return self.other.include(wanted);
        }
        own.any(|(_, perms)| perms.within(mask).include(wanted))
    }
}

impl TryFrom<Vec<u8>> for Acl {
    type Error = Status;

    fn try_from(bytes: Vec<u8>) -> Result<Self, Status> {
        Acl::parse(&bytes)?.ok_or(Status::Invalid)
    }
}

impl From<Acl> for Vec<u8> {
    fn from(acl: Acl) -> Vec<u8> {
        acl.to_bytes()
    }
}

/// What is left to parse.
struct Entries<'a> {
    rest: &'a [[u8; ENTRY_BYTES]],
}

impl Entries<'_> {
    /// The next entry, if it has this tag.
    fn take(&mut self, tag: u16) -> Result<Option<Named>, Status> {
        let Some((entry, rest)) = self.rest.split_first() else {
            return Ok(None);
        };
        let [t0, t1, p0, p1, id @ ..] = *entry;
        if u16::from_le_bytes([t0, t1]) != tag {
            return Ok(None);
        }
        self.rest = rest;
        let perms = Perms::parse(u16::from_le_bytes([p0, p1]))?;
        Ok(Some((u32::from_le_bytes(id), perms)))
    }

    fn take_one(&mut self, tag: u16) -> Result<Option<Perms>, Status> {
        Ok(self.take(tag)?.map(|(_, perms)| perms))
    }

    fn take_named(&mut self, tag: u16) -> Result<Vec<Named>, Status> {
        let mut named = Vec::new();
        while let Some(entry) = self.take(tag)? {
            named.push(entry);
        }
        named.sort_by_key(|(id, _)| *id);
        let is_wrong = |pair: &[Named]| pair[0].0 == pair[1].0;
        if named.windows(2).any(is_wrong) || named.iter().any(|(id, _)| *id == NOBODY) {
            return Err(Status::Invalid);
        }
        Ok(named)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for (tag, perms, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(perms.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        Acl::parse(&bytes(entries)).expect("valid").expect("some")
    }

    /// Owner 7, user 5 may 6, group 4, group 30 may 7, mask 6, others 0.
    fn some_acl() -> Acl {
        acl(&[
            (TAG_OWNER, 7, NOBODY),
            (TAG_USER, 6, 5),
            (TAG_GROUP_OWNER, 4, NOBODY),
            (TAG_GROUP, 7, 30),
            (TAG_MASK, 6, NOBODY),
            (TAG_OTHER, 0, NOBODY),
        ])
    }

    #[test]
    fn parse_refuses_what_is_no_acl() {
        let minimal = [
            (TAG_OWNER, 7, NOBODY),
            (TAG_GROUP_OWNER, 5, NOBODY),
            (TAG_OTHER, 5, NOBODY),
        ];
        assert!(acl(&minimal).is_minimal());
        assert_eq!(Acl::parse(&bytes(&[])), Ok(None));
        let without = |at: usize| {
            let mut entries = minimal.to_vec();
            entries.remove(at);
            entries
        };
        let with = |at: usize, entry: (u16, u16, u32)| {
            let mut entries = minimal.to_vec();
            entries.insert(at, entry);
            entries
        };
        let twice = {
            let mut entries = with(1, (TAG_USER, 1, 9));
            entries.insert(1, (TAG_USER, 1, 9));
            entries.insert(4, (TAG_MASK, 1, NOBODY));
            entries
        };
        let bad = [
            without(0),
            without(1),
            without(2),
            with(0, (TAG_OWNER, 7, NOBODY)),
            with(0, (TAG_MASK, 7, NOBODY)),
            // Somebody is named and there is no mask.
            with(1, (TAG_USER, 7, 9)),
            with(2, (TAG_GROUP, 7, 9)),
            with(3, (0x40, 7, NOBODY)),
            with(2, (TAG_MASK, 8, NOBODY)),
            twice,
        ];
        for entries in bad {
            assert_eq!(
                Acl::parse(&bytes(&entries)),
                Err(Status::Invalid),
                "{entries:?}"
            );
        }
        let good = bytes(&minimal);
        assert_eq!(Acl::parse(&good[..good.len() - 1]), Err(Status::Invalid));
        assert_eq!(Acl::parse(b""), Err(Status::Invalid));
        assert_eq!(Acl::parse(&[1, 0, 0, 0]), Err(Status::Invalid));
    }

    #[test]
    fn mode_and_acl_show_each_other() {
        assert_eq!(some_acl().mode_bits(), 0o760);
        let changed = some_acl().with_mode(0o100_645);
        assert_eq!(changed.mode_bits(), 0o645);
        assert_eq!(
            changed.group_owner,
            Perms(4),
            "chmod changes the mask, not the group"
        );
        assert_eq!(some_acl().for_new(0o666).mode_bits(), 0o660);
        assert_eq!(some_acl().for_new(0o640).mode_bits(), 0o640);
    }

    #[test]
    fn permits_goes_by_the_first_class_that_fits() {
        let acl = some_acl();
        let asks = |uid, groups: &[u32], wanted| {
            acl.permits(Asker { uid, groups }, (1, 20), Perms(wanted))
        };
        assert!(asks(1, &[20], 7), "the owner, whatever the mask");
        assert!(
            asks(5, &[20], 6) && !asks(5, &[20, 30], 1),
            "a named user, bounded"
        );
        assert!(asks(2, &[20], 4) && !asks(2, &[20], 2), "the group");
        assert!(
            asks(2, &[20, 30], 6) && !asks(2, &[30], 1),
            "any group, bounded"
        );
        assert!(!asks(2, &[9], 1) && asks(2, &[9], 0), "others");
    }

    proptest! {
        #[test]
        fn acl_of_any_bytes_is_canonical_or_refused(
            entries in proptest::collection::vec(
                (prop_oneof![Just(1u16), Just(2), Just(4), Just(8), Just(16), Just(32)], 0u16..9, 0u32..4),
                0..8,
            ),
            is_sorted in any::<bool>(),
        ) {
            let mut entries = entries;
            if is_sorted {
                entries.sort();
            }
            if let Ok(Some(acl)) = Acl::parse(&bytes(&entries)) {
                prop_assert_eq!(Acl::parse(&acl.to_bytes()), Ok(Some(acl.clone())));
                prop_assert_eq!(acl.to_bytes().len(), bytes(&entries).len());
            }
        }
    }
}
