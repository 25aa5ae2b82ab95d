"""Mount options one by one, recursive ones, propagation, tmpcopyup, id-mapped mounts, cgroup, links in destinations."""

import json
import os
import subprocess

import pytest


def mountinfo(text):
    """{mount point: (options, optional fields, file system, super options)}; the last mount on a point wins."""
    found = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 10 or "-" not in fields:
            continue
        dash = fields.index("-")
        found[fields[4]] = (set(fields[5].split(",")), fields[6:dash], fields[dash + 1], fields[dash + 3])
    return found


def mounts_of(oci, *more):
    return mountinfo(oci.run("cat", "/proc/self/mountinfo", *more).out)


def add_tmpfs(oci, *options, destination="/t", **more):
    oci.config["mounts"].append({"destination": destination, "type": "tmpfs", "source": "tmpfs",
                                 "options": list(options), **more})


def add_bind(oci, source, *options, destination="/d", **more):
    oci.config["mounts"].append({"destination": destination, "type": "bind", "source": str(source),
                                 "options": list(options), **more})


# option, what mountinfo must and must not show
ATTRIBUTES = [("ro", {"ro"}, set()), ("rw", {"rw"}, set()), ("nosuid", {"nosuid"}, set()), ("nodev", {"nodev"}, set()),
              ("noexec", {"noexec"}, set()), ("noatime", {"noatime"}, {"relatime"}), ("relatime", {"relatime"}, {"noatime"}),
              ("strictatime", set(), {"relatime", "noatime"}), ("nodiratime", {"nodiratime"}, set()),
              ("nosymfollow", {"nosymfollow"}, set())]


@pytest.mark.parametrize("option,shown,hidden", ATTRIBUTES, ids=[entry[0] for entry in ATTRIBUTES])
def test_attribute(oci, option, shown, hidden):
    add_tmpfs(oci, option)
    options = mounts_of(oci)["/t"][0]
    assert shown <= options and not hidden & options, options


@pytest.mark.parametrize("first,second", [("ro", "rw"), ("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec"),
                                          ("noatime", "strictatime"), ("nodiratime", "diratime"), ("nosymfollow", "symfollow")])
def test_the_later_of_two_options_wins(oci, first, second):
    add_tmpfs(oci, first, second)
    assert first not in mounts_of(oci)["/t"][0]


def test_words_without_effect_are_taken(oci):
    add_tmpfs(oci, "defaults", "async", "loud", "silent", "nomand", "nolazytime", "noiversion")
    assert mounts_of(oci)["/t"][2] == "tmpfs"


def test_unknown_option_is_refused(oci):
    add_tmpfs(oci, "no_such_option=1")
    assert oci.run("exit", "0", code=None).code != 0


def check_recursive(oci, source, option, shown):
    add_bind(oci, source, "rbind", option)
    found = {point: entry[0] for point, entry in mounts_of(oci).items() if point.startswith("/d/") or point == "/d"}
    assert len(found) > 1 and all(shown in options for options in found.values()), found


RECURSIVE = [("rro", "ro"), ("rnosuid", "nosuid"), ("rnodev", "nodev"), ("rnoexec", "noexec"),
             ("rnosymfollow", "nosymfollow")]


@pytest.mark.parametrize("option,shown", RECURSIVE, ids=[entry[0] for entry in RECURSIVE])
def test_recursive_attribute(oci, option, shown):
    """The host's /dev has mounts below it (pts, shm)."""
    check_recursive(oci, "/dev", option, shown)


@pytest.mark.parametrize("option,shown", [("rnoatime", "noatime"), ("rnodiratime", "nodiratime")])
def test_recursive_atime(nested_oci, option, shown):
    """A user namespace may change the atime modes of its own mounts only."""
    check_recursive(nested_oci, nested_tmpfs(nested_oci), option, shown)


CLEARING = {"rrw": "ro", "rsuid": "nosuid", "rdev": "nodev", "rexec": "noexec", "rsymfollow": "nosymfollow",
            "rdiratime": "nodiratime", "ratime": "noatime", "rrelatime": "noatime", "rstrictatime": "noatime",
            "rnorelatime": "noatime", "rnostrictatime": "noatime"}


@pytest.mark.parametrize("option", CLEARING)
def test_recursive_attribute_is_taken_away(kelp_oci_nested, option):
    """Where the mounts belong to the container's own user namespace, here that of its caller."""
    oci = kelp_oci_nested
    without_user_namespace(oci)
    source = nested_tmpfs(oci)
    word = CLEARING[option]
    for point in (source, source / "below"):
        subprocess.run([*oci.nested.prefix(), "mount", "-o", f"remount,bind,{word}", str(point)], check=True)
    add_bind(oci, source, "rbind", destination="/before")
    add_bind(oci, source, "rbind", option)
    found = {point: entry[0] for point, entry in mounts_of(oci).items()}
    assert word in found["/before"] and word in found["/before/below"], found
    for point in ("/d", "/d/below"):
        assert word not in found[point] and ("relatime" in found[point]) == (option != "rstrictatime"), found


def without_user_namespace(oci):
    """The container stays in that of its caller."""
    oci.linux["namespaces"] = [entry for entry in oci.linux["namespaces"] if entry["type"] != "user"]
    for kind in ("uidMappings", "gidMappings"):
        oci.linux.pop(kind)


@pytest.mark.parametrize("options", [("norelatime",), ("strictatime", "nostrictatime"), ("noatime", "atime")], ids=lambda words: words[-1])
def test_access_time_as_the_kernel_has_it_by_default(oci, options):
    add_tmpfs(oci, *options)
    shown = mounts_of(oci)["/t"][0]
    assert "relatime" in shown and "noatime" not in shown, shown


@pytest.mark.parametrize("option", ["sync", "dirsync", "mand", "lazytime"])
def test_flag_of_the_file_system_itself(oci, option):
    """Asked of the file system, which shows it where it has it."""
    add_tmpfs(oci, option)
    entry = mounts_of(oci)["/t"]
    assert entry[2] == "tmpfs" and (option == "mand" or option in entry[3].split(",")), entry


def test_plain_attribute_is_not_recursive(oci):
    add_bind(oci, "/dev", "rbind", "ro")
    found = {point: entry[0] for point, entry in mounts_of(oci).items() if point.startswith("/d/") or point == "/d"}
    assert "ro" in found.pop("/d")
    assert any("ro" not in options for options in found.values()), found


PROPAGATION = [("shared", True, False), ("rshared", True, False), ("slave", False, None), ("rslave", False, None),
               ("private", False, False), ("rprivate", False, False), ("unbindable", False, False),
               ("runbindable", False, False)]


@pytest.mark.parametrize("option,shared,slave", PROPAGATION, ids=[entry[0] for entry in PROPAGATION])
def test_propagation_of_a_mount(oci, option, shared, slave):
    add_tmpfs(oci, option)
    optional = mounts_of(oci)["/t"][1]
    assert any(field.startswith("shared:") for field in optional) == shared, optional
    if slave is not None:
        assert any(field.startswith("master:") for field in optional) == slave, optional
    assert ("unbindable" in optional) == ("unbindable" in option), optional


@pytest.mark.parametrize("kind", ["private", "rprivate", "slave", "rslave", "unbindable", "runbindable"])
def test_propagation_of_the_root(oci, kind):
    oci.linux["rootfsPropagation"] = kind
    optional = mounts_of(oci)["/"][1]
    assert not any(field.startswith("shared:") for field in optional), optional
    assert ("unbindable" in optional) == ("unbindable" in kind), optional


def test_shared_root(kelp_oci):
    kelp_oci.linux["rootfsPropagation"] = "rshared"
    assert any(field.startswith("shared:") for field in mounts_of(kelp_oci)["/"][1])


def test_tmpcopyup(oci):
    (oci.rootfs / "etc/sub").mkdir()
    (oci.rootfs / "etc/sub/file").write_text("content\n")
    (oci.rootfs / "etc/run").write_text("#!\n")
    (oci.rootfs / "etc/run").chmod(0o750)
    (oci.rootfs / "etc/link").symlink_to("sub/file")
    add_tmpfs(oci, "tmpcopyup", destination="/etc")
    out = oci.run("cat", "/etc/sub/file", ";", "stat", "/etc/run", ";", "lstat", "/etc/link", ";", "write", "/etc/new", "x").lines
    assert out[0] == "content" and json.loads(out[1])["mode"] == 0o750 and json.loads(out[2])["target"] == "sub/file"
    assert out[3] == "ok" and not (oci.rootfs / "etc/new").exists()


def test_tmpfs_takes_the_mode_below(oci):
    (oci.rootfs / "sticky").mkdir()
    (oci.rootfs / "sticky").chmod(0o1777)
    add_tmpfs(oci, destination="/sticky")
    assert json.loads(oci.run("stat", "/sticky").lines[0])["mode"] == 0o1777


def test_missing_destinations_are_made(oci):
    source = oci.place / "file"
    source.write_text("content\n")
    add_tmpfs(oci, destination="/new/deep/dir")
    add_bind(oci, source, "bind", destination="/other/deep/file")
    out = oci.run("stat", "/new/deep/dir", ";", "cat", "/other/deep/file").lines
    assert json.loads(out[0])["type"] == "dir" and out[1] == "content"


def test_destination_through_a_link(oci):
    """An absolute link of the image means the image's own path, also as the last part."""
    (oci.rootfs / "real").mkdir()
    (oci.rootfs / "abs").symlink_to("/real")
    (oci.rootfs / "rel").symlink_to("home/../real")
    (oci.place / "s1").mkdir()
    (oci.place / "s1/mark").write_text("one\n")
    (oci.place / "s1/sub").mkdir()
    add_bind(oci, oci.place / "s1", "bind", destination="/abs")
    add_tmpfs(oci, destination="/rel/sub")
    assert oci.run("cat", "/real/mark", ";", "write", "/real/sub/x", "1").lines == ["one", "ok"]
    assert not (oci.place / "s1/sub/x").exists()


def test_dangling_link_as_destination(oci):
    outside = oci.place / "outside"
    (oci.rootfs / "dangling").symlink_to(outside)
    (oci.place / "s").mkdir()
    (oci.place / "s/mark").write_text("in\n")
    add_bind(oci, oci.place / "s", "bind", destination="/dangling")
    assert oci.run("cat", "/dangling/mark").lines == ["in"]
    assert not outside.exists(), "it was made on the host"


def test_relative_source_is_below_the_bundle(kelp_oci):
    (kelp_oci.bundle / "data").mkdir()
    (kelp_oci.bundle / "data/mark").write_text("here\n")
    add_bind(kelp_oci, "data", "bind")
    assert kelp_oci.run("cat", "/d/mark").lines == ["here"]


def test_source_that_is_a_link(oci):
    (oci.place / "target").mkdir()
    (oci.place / "target/mark").write_text("there\n")
    (oci.place / "link").symlink_to("target")
    add_bind(oci, oci.place / "link", "bind")
    assert oci.run("cat", "/d/mark").lines == ["there"]


def test_remount(kelp_oci):
    add_tmpfs(kelp_oci, "rw")
    kelp_oci.config["mounts"].append({"destination": "/t", "type": "none", "source": "none",
                                      "options": ["remount", "bind", "ro", "noexec"]})
    assert {"ro", "noexec"} <= mounts_of(kelp_oci)["/t"][0]


def test_cgroup_mount(nested_oci):
    oci = nested_oci
    (oci.rootfs / "sys/fs/cgroup").mkdir(parents=True)
    oci.config["mounts"].append({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
                                 "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]})
    entry = mounts_of(oci)["/sys/fs/cgroup"]
    assert entry[2] == "cgroup2" and {"ro", "nosuid", "nodev", "noexec"} <= entry[0]


def test_type_without_source_is_named(kelp_oci):
    kelp_oci.config["mounts"].append({"destination": "/x"})
    done = kelp_oci.run("exit", "0", code=None)
    assert done.code != 0 and "mounts[5].type" in done.err


def nested_tmpfs(oci):
    """A tmpfs that the nested user namespace owns: one that its root may map the ids of."""
    source = oci.place / "mapped"
    source.mkdir()
    commands = f"mount -t tmpfs none {source} && echo in >{source}/file && chown 3:4 {source}/file && " \
               f"mkdir {source}/below && mount -t tmpfs none {source}/below && echo in >{source}/below/file && " \
               f"chown 3:4 {source}/below/file"
    subprocess.run([*oci.nested.prefix(), "sh", "-c", commands], check=True)
    return source


SHIFT = [{"containerID": 0, "hostID": 10, "size": 100}]


@pytest.mark.parametrize("option,below", [("idmap", 3), ("ridmap", 13)])
def test_idmapped_mount(nested_oci, option, below):
    oci = nested_oci
    source = nested_tmpfs(oci)
    add_bind(oci, source, "rbind", option, uidMappings=SHIFT, gidMappings=SHIFT)
    out = [json.loads(line) for line in oci.run("stat", "/d/file", ";", "stat", "/d/below/file").lines]
    assert (out[0]["uid"], out[0]["gid"]) == (13, 14) and out[1]["uid"] == below


def test_idmap_without_maps_takes_the_containers(kelp_oci_nested):
    """Ids on the mount then are what the container shows: 3 in the file system is 3 inside, whatever its map."""
    oci = kelp_oci_nested
    source = nested_tmpfs(oci)
    oci.linux["uidMappings"] = oci.linux["gidMappings"] = [{"containerID": 0, "hostID": 1000, "size": 1000}]
    (oci.rootfs / "d").mkdir()
    add_bind(oci, source, "rbind", "idmap")
    out = json.loads(oci.run("stat", "/d/file").lines[0])
    assert (out["uid"], out["gid"]) == (3, 4)


def test_idmap_needs_maps(kelp_oci):
    kelp_oci.linux["namespaces"] = [entry for entry in kelp_oci.linux["namespaces"] if entry["type"] != "user"]
    for kind in ("uidMappings", "gidMappings"):
        kelp_oci.linux.pop(kind)
    add_bind(kelp_oci, "/etc", "bind", "idmap")
    kelp_oci.base.insert(1, "--rootless=false")
    done = kelp_oci.run("exit", "0", code=None)
    assert done.code != 0 and "idmap" in done.err and "mounts[5]" in done.err


def test_host_mounts_arrive_in_a_slave(nested_oci):
    """rslave: what is mounted below the source afterwards appears in the container; private: it does not."""
    oci = nested_oci
    source = oci.place / "later"
    source.mkdir()
    in_namespace = [*oci.nested.prefix(), "sh", "-c"]
    subprocess.run([*in_namespace, f"mount --bind {source} {source} && mount --make-shared {source} && mkdir {source}/m"], check=True)
    add_bind(oci, source, "rbind", "rslave", destination="/slave")
    add_bind(oci, source, "rbind", "rprivate", destination="/private")
    oci.create("wait")
    oci.start()
    oci.output("ready")
    subprocess.run([*in_namespace, f"mount -t tmpfs none {source}/m && touch {source}/m/mark"], check=True)
    out = oci.exec("ls", "/slave/m", ";", "ls", "/private/m").lines
    assert [json.loads(line) for line in out] == [["mark"], []]


def test_device_over_a_directory_is_refused(kelp_oci):
    (kelp_oci.rootfs / "dev/x").mkdir()
    kelp_oci.config["mounts"] = [entry for entry in kelp_oci.config["mounts"] if not entry["destination"].startswith("/dev")]
    kelp_oci.linux["devices"] = [{"type": "c", "path": "/dev/x", "major": 1, "minor": 3}]
    done = kelp_oci.run("exit", "0", code=None)
    assert done.code != 0 and "/dev/x" in done.err
