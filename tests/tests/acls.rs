//! POSIX ACLs with the programs that set them, enforced on every mount.

use std::fs;
use std::path::Path;

use vdfs_tests::programs::shell;
use vdfs_tests::{Options, Way, on_up_and_on_a_cluster};

on_up_and_on_a_cluster!(
    acl_set_on_one_mount_is_enforced_on_both,
    default_acl_is_inherited_instead_of_the_umask,
    acl_survives_the_death_of_every_process,
);

/// A prefix that runs a command as an ordinary user, with one further group.
fn as_user(uid: u32, group: u32) -> String {
    format!("setpriv --reuid {uid} --regid {uid} --groups {group}")
}

/// Runs `command` as this user in both directories, and checks whether it may.
fn assert_may(dirs: [&Path; 2], (uid, group): (u32, u32), command: &str, may: bool) {
    let user = as_user(uid, group);
    for dir in dirs {
        let script = match may {
            true => format!("{user} {command}"),
            false => format!("{user} {command} 2>&1 | grep -q 'Permission denied'"),
        };
        shell(&script, dir);
    }
}

fn acl_set_on_one_mount_is_enforced_on_both(way: Way) {
    let vdfs = way.start(Options::default());
    let second = vdfs.second_mount();
    let (here, there) = (vdfs.dir(), second.dir());
    let dirs = [&*here, &*there];
    shell(
        "echo secret > f; chmod 600 f; mkdir d; echo x > d/x; chmod 700 d",
        &here,
    );
    assert_may(dirs, (1000, 1000), "cat f", false);
    assert_may(dirs, (1000, 1000), "cat d/x", false);

    shell(
        "setfacl -m u:1000:r,g:2000:rw f; setfacl -m u:1000:x d",
        &there,
    );
    assert_may(dirs, (1000, 1000), "cat f", true);
    assert_may(dirs, (1000, 1000), "cat d/x", true);
    assert_may(dirs, (1000, 1000), "ls d", false);
    assert_may(dirs, (1000, 1000), "tee -a f < /dev/null", false);
    assert_may(dirs, (1001, 2000), "tee -a f < /dev/null", true);
    assert_may(dirs, (1001, 1001), "cat f", false);
    let mode = "test $(stat -c %a f) = 660; test $(ls -ld f | cut -c 11) = +";
    for dir in dirs {
        shell(mode, dir);
    }

    // chmod changes the mask, which bounds all but the owner.
    shell("chmod g-w f", &here);
    assert_may(dirs, (1001, 2000), "tee -a f < /dev/null", false);
    assert_may(dirs, (1001, 2000), "cat f", true);
    let listed = "getfacl -cpn f";
    let expected = "user::rw-\nuser:1000:r--\ngroup::---\ngroup:2000:rw-\t#effective:r--\n\
                    mask::r--\nother::---\n\n";
    for dir in dirs {
        assert_eq!(shell(listed, dir), expected);
    }

    // A copy keeps them, also to another filesystem and back.
    shell(
        "cp -a f g; test \"$(getfacl -cpn f)\" = \"$(getfacl -cpn g)\"",
        &here,
    );
    shell("setfacl -b f", &there);
    assert_may(dirs, (1000, 1000), "cat f", false);
    let names = "test -z \"$(getfattr -d -m - f)\"; test $(stat -c %a f) = 600";
    for dir in dirs {
        shell(names, dir);
    }
}

fn default_acl_is_inherited_instead_of_the_umask(way: Way) {
    let vdfs = way.start(Options::default());
    let script = "
        umask 077
        mkdir d plain; chmod 777 d; setfacl -d -m u::rwx,g::r-x,o::---,u:1000:rwx d
        mkdir d/sub; echo x > d/sub/file; mkfifo d/sub/pipe; ln -s file d/sub/link
        touch plain/file
        test $(stat -c %a plain/file) = 600
        test $(stat -c %a d/sub) = 770
        test $(stat -c %a d/sub/file) = 660
        test $(stat -c %a d/sub/pipe) = 660
        test \"$(getfacl -dcpn d)\" = \"$(getfacl -dcpn d/sub)\"
        test -z \"$(getfacl -dcpn d/sub/file)\"
        getfacl -cpn d/sub/file | grep -q '^user:1000:rwx.*#effective:rw-'
        setfacl -k d/sub; touch d/sub/later; test $(stat -c %a d/sub/later) = 600";
    shell(script, &vdfs.dir());
    let user = as_user(1000, 1000);
    shell(&format!("{user} cat d/sub/file"), &vdfs.dir());
    // An ordinary user's own directory, without privilege.
    let script = format!(
        "mkdir -m 777 t; {user} mkdir t/own; {user} setfacl -d -m g:2000:rx t/own
         {user} touch t/own/f; getfacl -cpn t/own/f | grep -q '^group:2000:r-x'
         {user} setfacl -m u:0:r f 2>&1 | grep -q 'No such file'
         touch roots; {user} setfacl -m u:1000:rw roots 2>&1 | grep -q 'not permitted'"
    );
    shell(&script, &vdfs.dir());
}

fn acl_survives_the_death_of_every_process(way: Way) {
    let mut vdfs = way.start(Options::default());
    shell(
        "mkdir d; setfacl -m u:1000:rwx,d:u:1001:r d; touch d/f",
        &vdfs.dir(),
    );
    let before = shell("getfacl -Rpn d", &vdfs.dir());
    assert!(before.contains("user:1001:r--"), "{before}");
    vdfs.kill9();
    vdfs.run_again();
    assert_eq!(shell("getfacl -Rpn d", &vdfs.dir()), before);
    fs::remove_dir_all(vdfs.dir().join("d")).expect("removes");
}
