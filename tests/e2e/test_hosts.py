"""Hosts that lack something: kelp runs at the highest level that is left, and says in one line what it does without.

`Host` runs kelp where root has changed the host for it, in a mount namespace of its own (tests/harness/root_agent.py).
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest

from harness import confine, images, needs, processes
from harness.programs import Result
from harness.waiting import until

NONE = ("--network", "none")
NO_CGROUPS = "umount -R /sys/fs/cgroup || mount -t tmpfs none /sys/fs/cgroup"
PURE_V2 = "mount -t tmpfs none /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup"
V1_ONLY = "mount -t tmpfs none /sys/fs/cgroup; mkdir /sys/fs/cgroup/memory; mount -t tmpfs none /sys/fs/cgroup/memory"
NO_TUN = "mount -t tmpfs none /dev/net"
NO_FUSE = "mount --bind /dev/null /dev/fuse; mount -o remount,bind,nodev /dev/fuse"
NO_RANGES = "mount --bind /dev/null /etc/subuid; mount --bind /dev/null /etc/subgid"
NO_HELPER = "for p in newuidmap newgidmap; do mount --bind /dev/null $(command -v $p); done"


class Host:
    """kelp on a host that root has changed."""

    def __init__(self, kelp, agent, *setup, role="user", env=None):
        self.kelp, self.agent, self.setup, self.role = kelp, agent, "\n".join(setup), role
        self.env = {**kelp.env, **(env or {})}

    def __call__(self, *args, code=0, timeout=120, program=None):
        argv = [program or self.kelp.path, *map(str, args)]
        status, out, err = self.agent("host", setup=self.setup, argv=argv, env=self.env, role=self.role, timeout=timeout)
        result = Result(argv, status, out, err, 0)
        assert code is None or status == code, result
        return result

    def level(self):
        return json.loads(self("doctor", "--format", "json", code=None).out)["Level"]

    def runs(self, *options, warnings=0):
        """A container runs here, with so many lines of warning."""
        result = self("run", "--rm", *options, "busybox", "echo", "alive")
        assert result.text == "alive", result
        assert len([line for line in result.err.splitlines() if line]) == warnings, result
        return result


def warnings_of(result):
    return [line for line in result.err.splitlines() if line.startswith("kelp: warning:")]


# --- systemd and control groups --------------------------------------------------------------------------------------

@pytest.mark.parametrize("setup", ["", "mount -t tmpfs none /run/systemd 2>/dev/null || true", NO_CGROUPS, V1_ONLY, PURE_V2],
                         ids=["as-it-is", "no-systemd", "no-cgroups", "v1", "v2-not-delegated"])
def test_no_systemd_and_any_cgroups(kelp, agent, setup):
    host = Host(kelp, agent, setup)
    host.runs()
    host("run", "-d", "--name", "c", *NONE, "busybox", "sleep", "100")
    assert host("exec", "c", "echo", "in").text == "in"
    assert json.loads(host("inspect", "c").out)[0]["State"]["Status"] == "running"
    host("rm", "-f", "-t", "0", "c")


@pytest.mark.parametrize("setup", [NO_CGROUPS, V1_ONLY, PURE_V2], ids=["no-cgroups", "v1", "v2-not-delegated"])
def test_a_limit_that_cannot_be_enforced_is_refused_with_the_reason(kelp, agent, setup):
    host = Host(kelp, agent, setup)
    result = host("run", "--rm", "--memory", "64m", "busybox", "true", code=125)
    lines = result.err.splitlines()
    assert len(lines) == 2 and "--memory" in lines[0] and lines[1].startswith("hint: "), result
    doctor = host("doctor").out
    assert re.search(r"^! cgroups .*\n +→ ", doctor, re.M), doctor


def test_a_group_of_ones_own_without_any_controller(kelp, agent):
    """What cgroup v2 counts and does by itself: pressure where the kernel has it, and the freezer."""
    own = f"/sys/fs/cgroup/kt-own-{os.getpid()}"
    host = Host(kelp, agent, f"{PURE_V2}; mkdir -p {own}/shell; chown -R {os.getuid()} {own}; echo $$ >{own}/shell/cgroup.procs")
    try:
        host("run", "-d", "--name", "c", *NONE, "busybox", "sleep", "100")
        group = "/sys/fs/cgroup" + host("inspect", "--format", "{{.State.CgroupPath}}", "c").text
        assert group.startswith(own + "/kelp-")
        row = json.loads(host("stats", "--no-stream", "--format", "json", "c").out)[0]
        report = json.loads(host("isolation", "--format", "json", "c", code=None).out)[0]
        if os.path.exists("/proc/pressure"):
            assert set(row["pressure"]) == set(report["Use"]["Pressure"]) == {"cpu", "memory", "io"}
            words = host("stats", "--no-stream", "--format", "{{.CPUPressure}} {{.MemPressure}} {{.IOPressure}}", "c").text
            assert re.fullmatch(r"(\d+\.\d\d% ?){3}", words), words
            now = re.search(r"some .* total=(\d+)", host(f"{group}/cpu.pressure", program="cat").out).group(1)
            assert 0 <= row["pressure"]["cpu"]["some"]["total"] <= int(now)
        else:
            assert "pressure" not in row and "Pressure" not in report["Use"]
        host("pause", "c")
        assert host("inspect", "--format", "{{.State.Status}}", "c").text == "paused"
        assert host(f"{group}/cgroup.freeze", program="cat").text == "1"
        host("unpause", "c")
        host("rm", "-f", "-t", "0", "c")
    finally:
        host("rm", "-f", "-a", "-t", "0", code=None)
        agent("host", setup=f"{PURE_V2}; rmdir {own}/shell {own}", argv=["true"], env={"PATH": kelp.env["PATH"]}, role="root")


# --- ids -------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("setup", [NO_RANGES, NO_HELPER], ids=["no-ranges", "no-newuidmap"])
def test_single_id(kelp, agent, setup):
    host = Host(kelp, agent, setup)
    assert host.level().startswith("single-id")
    result = host("run", "--rm", "busybox", "sh", "-c", "id -u; touch /f && chown 5:6 /f && su app -s /bin/sh -c 'echo as app'")
    assert result.lines == ["0", "as app"]
    assert len(warnings_of(result)) == 1, result
    assert "kelp doctor" in result.err


def findings(host, **more):
    answer = json.loads(host("doctor", "--format", "json", **more).out)
    return {finding["Name"]: finding for finding in answer["Findings"]}


# What brings a package here, by the distribution.
INSTALL = r"(sudo (apt-get install|dnf install|zypper install|pacman -S|apk add)|install the package) "


def test_helpers_of_id_maps_that_are_missing_have_their_package_named(kelp, agent):
    found = findings(Host(kelp, agent, NO_HELPER))["id helpers"]
    assert found["Verdict"] == "warning" and "newuidmap" in found["Text"], found
    assert re.fullmatch(INSTALL + "(uidmap|shadow-utils|shadow|shadow-uidmap)", found["Fix"]), found


def test_a_range_that_is_too_small(kelp, agent):
    """Containers have what there is; that images may need more is said, with the command that adds it."""
    name, first = subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip(), needs_first_id()
    host = Host(kelp, agent, f"printf '{name}:{first}:1000\\n' >/run/kelp-test-ids; mount --bind /run/kelp-test-ids /etc/subuid; "
                "mount --bind /run/kelp-test-ids /etc/subgid; rm /run/kelp-test-ids")
    found = findings(host)["subordinate ids"]
    assert found["Verdict"] == "warning" and found["Text"].startswith("1000 user ids and 1000 group ids "), found
    assert re.fullmatch(rf"sudo usermod --add-subuids \d+-\d+ --add-subgids \d+-\d+ {re.escape(name)}", found["Fix"]), found
    result = host("run", "--rm", *NONE, "busybox", "cat", "/proc/self/uid_map")
    assert [line.split()[2] for line in result.lines] == ["1", "1000"], result


def needs_first_id():
    """The first of this user's subordinate ids."""
    needs.need("subids")
    names = (subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip(), str(os.getuid()))
    return next(int(line.split(":")[1]) for line in open("/etc/subuid") if line.split(":")[0] in names)


def test_a_user_in_single_id_mode_is_the_one_id_under_another_number(kelp, agent):
    host = Host(kelp, agent, NO_RANGES)
    out = host("run", "--rm", "-u", "app", "busybox", "sh", "-c", "id -u; id -g; cat /proc/self/uid_map; touch /tmp/f && "
               "stat -c %u /tmp/f; grep CapEff /proc/self/status").lines
    assert out[:2] == ["1000", "1000"] and out[2].split()[0] == "1000" and out[2].split()[2] == "1"
    assert out[3] == "1000" and int(out[4].split()[1], 16) == 0
    host("run", "-d", "--name", "c", "-u", "app", *NONE, "busybox", "sleep", "100")
    assert host("exec", "-u", "root", "c", "echo", "one id").text == "one id"
    assert [p for p in (kelp.store / "containers").rglob("*") if p.lstat().st_uid != os.getuid()] == []
    host("rm", "-f", "-t", "0", "c")


def test_real_root_uses_its_own_range(kelp, agent, busybox_archive):
    """Still a user namespace: root of a container is not root of the host but for its files, and has a range of its own."""
    home = f"/tmp/kt-root-{os.getpid()}"
    env = {**kelp.env, "HOME": home, "XDG_DATA_HOME": f"{home}/d", "XDG_CACHE_HOME": f"{home}/c", "XDG_CONFIG_HOME": f"{home}/f",
           "XDG_RUNTIME_DIR": f"{home}/r", "USER": "root"}
    setup = f"mkdir -p -m 700 {home}/r; cp {busybox_archive} {home}/busybox.tar; chmod 644 {home}/busybox.tar; chmod 755 {home}"
    ranges = f"printf 'root:700000:65536\\n' >{home}/ids; mount --bind {home}/ids /etc/subuid; mount --bind {home}/ids /etc/subgid"
    host = Host(kelp, agent, setup, ranges, role="root", env=env)
    try:
        host("load", "-q", "-i", f"{home}/busybox.tar")
        out = host("run", "--rm", *NONE, "busybox", "cat", "/proc/self/uid_map").lines
        assert [line.split() for line in out] == [["0", "0", "1"], ["1", "700000", "65536"]]
        out = host("run", "--rm", *NONE, "busybox", "sh", "-c", "mknod /n b 8 0 2>/dev/null || echo refused; id -u").lines
        assert out == ["refused", "0"]
        without = Host(kelp, agent, setup, NO_RANGES, role="root", env=env)
        assert len(without("run", "--rm", *NONE, "busybox", "cat", "/proc/self/uid_map").lines) == 1
    finally:
        agent("host", setup=f"rm -rf {home}", argv=["true"], env={"PATH": kelp.env["PATH"]}, role="root")


# --- devices ---------------------------------------------------------------------------------------------------------

def test_no_tun(kelp, agent, place):
    host = Host(kelp, agent, NO_TUN)
    result = host("run", "--rm", "busybox", "true", code=125)
    lines = result.err.splitlines()
    assert len(lines) == 2 and "/dev/net/tun" in lines[0], result
    # Where the tests themselves run in a container the outer engine is named.
    assert re.search("modprobe tun|--device /dev/net/tun", lines[1]) and "--network none" in lines[1], result
    for network in ("none", "host"):
        host.runs("--network", network)
    assert host.level() == "no tun"
    settings = kelp.config / "kelp" / "kelp.toml"
    settings.parent.mkdir()
    settings.write_text('[network]\ndefault = "host"\n')
    assert host("run", "--rm", "busybox", "readlink", "/proc/self/ns/net").text == os.readlink("/proc/self/ns/net")
    host.runs("--network", "none")


def test_programs_of_others_have_their_versions_or_their_packages_named(kelp, agent, place):
    needs.need("tun")
    tools = place / "tools"
    tools.mkdir()
    (tools / "pasta").write_text("#!/bin/sh\necho pasta 0.0~of-a-test\necho Copyright\n")
    (tools / "pasta").chmod(0o755)
    found = findings(Host(kelp, agent, env={"PATH": f"{tools}:{kelp.env['PATH']}"}))
    slirp = needs.find_program("slirp4netns")
    version = subprocess.run([slirp, "--version"], capture_output=True, text=True).stdout.split()[2]
    assert found["slirp4netns"]["Text"].startswith(f"{slirp} ") and version in found["slirp4netns"]["Text"], found
    assert found["pasta"]["Text"] == f"{tools}/pasta (pasta 0.0~of-a-test)", found

    without = Host(kelp, agent, "for p in slirp4netns pasta; do f=$(command -v $p) && mount --bind /dev/null $f; done; true")
    found = findings(without)
    assert found["slirp4netns"]["Verdict"] == "warning" and "not installed" in found["slirp4netns"]["Text"], found
    assert re.fullmatch(INSTALL + "slirp4netns", found["slirp4netns"]["Fix"]), found
    assert found["pasta"]["Verdict"] == "ok" and "not needed" in found["pasta"]["Text"], found
    lines = without("run", "--rm", "busybox", "true", code=125).err.splitlines()
    assert len(lines) == 2 and "slirp4netns" in lines[0] and "kelp doctor" in lines[1], lines
    without.runs(*NONE)


def test_fuse_overlayfs_that_is_missing_and_needed_has_its_package_named(kelp_factory, agent, mounted):
    needs.need("fuse")
    kelp = kelp_factory()
    mounted(kelp.data, type="overlay")
    found = findings(Host(kelp, agent, "p=$(command -v fuse-overlayfs) && mount --bind /dev/null $p || true"))["fuse-overlayfs"]
    assert found["Verdict"] == "warning" and "copies its image" in found["Text"], found
    assert re.fullmatch(INSTALL + "fuse-overlayfs", found["Fix"]), found


@pytest.mark.parametrize("text, says", [('[network]\ndefault = 3\n', r"kelp.toml:2: network.default: must be a string"),
                                        ('[network]\ndefault = "nowhere"\n', r"kelp.toml:2: .*nowhere"),
                                        ('[store]\nkeep-blobs = "no"\n', r"kelp.toml:2: store.keep-blobs: must be true or false"),
                                        ('[store]\nkeep = true\n', r"kelp.toml:2: store.keep: unknown setting"),
                                        ('[net]\n', r"kelp.toml:1: unknown setting"),
                                        ('[network\n', r"kelp.toml:1: ")])
def test_a_broken_kelp_toml_is_named_with_its_line(kelp, text, says):
    settings = kelp.config / "kelp" / "kelp.toml"
    settings.parent.mkdir()
    settings.write_text(text)
    kelp.fails("run", "--rm", "busybox", "true", says=says)


def test_lines_of_the_hosts_own_hosts_file(kelp, agent, place):
    """Taken over, but for those of the loopback; --hosts-file names another file in its place, or none."""
    (place / "hosts").write_text("127.0.0.1 localhost\n127.0.1.1 itself\n10.7.7.7 nas nas.example.org # ours\n10.7.7.8 c\n")
    (place / "base").write_text("10.9.9.9 elsewhere\n")
    host = Host(kelp, agent, f"mount --bind {place}/hosts /etc/hosts")
    own = "127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.0.1\thosty c\n"

    def written(*options):
        return host("run", "--rm", "--name", "c", "--hostname", "hosty", *NONE, *options, "busybox", "cat", "/etc/hosts").out
    assert written() == "10.7.7.7\tnas nas.example.org\n" + own
    assert written("--hosts-file", "none") == own
    assert written("--hosts-file", place / "base") == "10.9.9.9 elsewhere\n" + own


# --- storage ---------------------------------------------------------------------------------------------------------

@pytest.fixture
def mounted(agent, place):
    """Mounts a file system on a directory of the test; of `disk`, a file, or one that needs none."""
    paths = []

    def mount(path, **how):
        path.mkdir(exist_ok=True)
        agent("mount", path=str(path), **how)
        paths.append(path)
        return path

    yield mount
    for path in reversed(paths):
        agent("unmount", path=str(path))


def layered_image(place):
    """Directories and files that a second layer takes away again."""
    first = images.LayerTar().directory("gone").file("gone/a", "a").directory("kept").file("kept/a", "a").file("kept/b", "b")
    second = images.LayerTar().directory("kept").whiteout("kept/a").whiteout("gone")
    third = images.LayerTar().directory("kept").opaque("kept").file("kept/c", "c")
    image = images.busybox_image([first, second, images.LayerTar().directory("other").file("other/x", "x"), third])
    return image.write_archive(place / "layered.tar", "localhost/layered:latest")


LAYERED = "test ! -e /gone && ls /kept /other && echo written >/kept/new && rm /other/x && mkdir /gone && ls /gone && cat /kept/new"
SEEN = ["/kept:", "c", "", "/other:", "x", "written"]


def storage_of(host):
    """What info says of how root file systems are put together, and why so."""
    info = json.loads(host("info", "--format", "json").out)
    storage = info["host"]["levels"]["storage"]
    assert info["store"]["graphStatus"]["Native Overlay Diff"] == ("true" if storage["driver"] == "overlay" else "false")
    return storage


def test_info_says_why_the_overlay_is_native(kelp, agent):
    reason = "a native overlay with extended attributes of the user works in graphRoot"
    assert storage_of(Host(kelp, agent)) == {"driver": "overlay", "reason": reason}


def test_info_says_that_fuse_overlayfs_is_missing(kelp_factory, agent, mounted):
    kelp = kelp_factory()
    mounted(kelp.data, type="overlay")
    storage = storage_of(Host(kelp, agent, "p=$(command -v fuse-overlayfs) && mount --bind /dev/null $p || true"))
    assert storage["driver"] == "copy" and storage["reason"].endswith("; fuse-overlayfs is not installed"), storage


@pytest.mark.parametrize("kind", ["overlay", "ramfs"])
@pytest.mark.parametrize("fuse", [True, False], ids=["fuse", "no-fuse"])
def test_a_store_on_which_no_overlay_can_be_mounted(kelp_factory, agent, place, mounted, kind, fuse):
    """The root file system of an outer container is an overlay itself; a ramfs knows no attributes."""
    if fuse:
        needs.need("fuse")
        needs.need("program:fuse-overlayfs")
    kelp = kelp_factory()
    mounted(kelp.data, type=kind)
    host = Host(kelp, agent, *([] if fuse else [NO_FUSE]))
    host("load", "-q", "-i", layered_image(place))
    level = host.level()
    assert level == f"storage by {'fuse-overlayfs' if fuse else 'copy'}"
    storage = storage_of(host)
    assert storage["driver"] == ("fuse-overlayfs" if fuse else "copy"), storage
    assert re.match(r"no native overlay in graphRoot: .*overlay.*: \S", storage["reason"]), storage
    assert storage["reason"].endswith("; fuse-overlayfs needs /dev/fuse, which cannot be opened") == (not fuse), storage
    assert ("kelp doctor" in storage.get("hint", "")) == (not fuse), storage
    # With --rm the writable layer may be in memory; without it, it must outlive the container.
    result = host("run", "--rm", *NONE, "layered", "sh", "-c", LAYERED)
    assert result.lines == SEEN and len(warnings_of(result)) <= 1, result
    result = host("run", "--name", "c", *NONE, "layered", "sh", "-c", LAYERED)
    assert result.lines == SEEN and len(warnings_of(result)) <= 1, result
    host("cp", "c:/kept/new", place / "copied")
    assert (place / "copied").read_text() == "written\n"
    host("start", "-a", "c", code=None)
    host("rm", "c")
    host("rmi", "layered")


@pytest.mark.parametrize("kind", ["btrfs", "xfs"])
def test_a_copy_shares_its_data_where_the_file_system_can(kelp_factory, agent, place, mounted, kind):
    """In an outer container (its root file system is an overlay) on such a disk: ten copies take the room of one."""
    needs.need(f"program:mkfs.{kind}")
    disk = place / "disk"
    with open(disk, "wb") as file:
        file.truncate(400 << 20)
    subprocess.run([needs.find_program(f"mkfs.{kind}"), "-q", str(disk)], check=True, capture_output=True)
    try:
        top = mounted(place / "top", type=kind, disk=str(disk))
    except AssertionError as error:
        needs.skip("reflink-filesystem", str(error))
    data = mounted(top / "data", type="overlay")
    image = images.busybox_image([images.LayerTar().file("big", os.urandom(1 << 20) * 16)])
    archive = image.write_archive(place / "big.tar", "localhost/big:latest")
    host = Host(kelp_factory(), agent, NO_FUSE, env={"XDG_DATA_HOME": str(data)})
    host("load", "-q", "-i", archive)
    assert host.level() == "storage by copy"

    def taken():
        os.sync()
        found = os.statvfs(top)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    host("run", "--name", "first", *NONE, "big", "sh", "-c", "echo x >/written")
    before = taken()
    for number in range(10):
        host("run", "--name", f"c{number}", *NONE, "big", "sh", "-c", "echo x >>/big; cat /written 2>/dev/null; wc -c </big")
    more = taken() - before
    assert more < 32 << 20, f"{more} bytes for ten copies of 16 MB"
    host("rm", "-f", "-a")


def test_with_rm_the_writable_layer_is_kept_in_memory_where_an_overlay_can_have_it_only_there(kelp_factory, agent, mounted,
                                                                                              busybox_archive):
    kelp = kelp_factory()
    mounted(kelp.data, type="overlay")
    host = Host(kelp, agent, NO_FUSE)
    host("load", "-q", "-i", busybox_archive)
    result = host("run", "--rm", *NONE, "busybox", "sh", "-c", "echo x >/f; grep ' / ' /proc/mounts | cut -d' ' -f3; df -k / | tail -1; cat /f")
    assert result.lines[0] == "overlay" and result.lines[-1] == "x", result
    size = int(result.lines[1].split()[1])
    available = int(re.search(r"MemAvailable: +(\d+)", pathlib.Path("/proc/meminfo").read_text()).group(1))
    assert size <= available * 0.75, result  # half of what was free when it was made
    assert result.err == ""


def fill(directory):
    """Takes what space is left in a file system, whoever it is kept for."""
    with open(directory / "filler", "wb", buffering=0) as out:
        try:
            while True:
                out.write(bytes(1 << 16))
        except OSError:
            pass


def test_a_full_disk_can_be_emptied(kelp_factory, agent, mounted, busybox_archive):
    kelp = kelp_factory()
    mounted(kelp.data, size="24m")
    kelp("load", "-q", "-i", busybox_archive)
    kelp("create", "--name", "old", *NONE, "busybox", "true")
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sleep", "100")
    fill(kelp.data)
    kelp("ps", "-a")
    kelp("stop", "-t", "0", "c")
    kelp("rm", "c")
    kelp("rm", "old")
    kelp("container", "prune", "-f")
    kelp("rmi", "busybox")
    kelp("image", "prune", "-f", "-a")
    assert kelp("images", "-q").text == "" and kelp("ps", "-aq").text == ""
    (kelp.data / "filler").unlink()


@pytest.mark.parametrize("prunes, kept", [
    ([("container", "prune", "-f"), ("volume", "prune", "-f", "-a"), ("image", "prune", "-f")], ["localhost/busybox:latest"]),
    ([("system", "prune", "-f", "--volumes")], ["localhost/busybox:latest"]),
    ([("system", "prune", "-f", "-a", "--volumes")], []),
], ids=["each", "system", "system-all"])
def test_a_full_disk_can_be_pruned(kelp_factory, agent, mounted, busybox_archive, prunes, kept):
    kelp = kelp_factory()
    mounted(kelp.data, size="32m")
    kelp("load", "-q", "-i", busybox_archive)
    kelp("tag", "busybox", "other")
    kelp("run", "--name", "wrote", "-v", "data:/data", *NONE, "busybox", "sh", "-c", "echo x >/data/x; echo y >/y")
    kelp("commit", "-q", "wrote", "other")
    kelp("commit", "-q", "--change", "CMD other", "wrote", "other")  # leaves the first without a name
    kelp("volume", "create", "unused")
    assert kelp("images", "-q", "--filter", "dangling=true").text != ""
    fill(kelp.data)
    for words in prunes:
        assert kelp(*words).text != "", words
    if not kept:
        assert kelp("images", "-q").text == ""
    assert kelp("ps", "-aq").text == "" and kelp("volume", "ls", "-q", "--filter", "name=data").text == ""
    assert kelp("images", "-q", "--filter", "dangling=true").text == ""
    assert set(kept) <= set(kelp("images", "--format", "{{.Repository}}:{{.Tag}}").text.split())
    (kelp.data / "filler").unlink()
    kelp("store", "verify")


# --- directories -----------------------------------------------------------------------------------------------------

def test_a_home_that_is_read_only_or_missing(kelp, agent, place, busybox_archive):
    without = {name: value for name, value in kelp.env.items() if not name.startswith("XDG_")}
    for home in (place / "ro", place / "missing" / "home"):
        if home.name == "ro":
            home.mkdir(mode=0o555)
        else:
            (place / "missing").mkdir(mode=0o555)
        result = subprocess.run(kelp.argv("run", "--rm", "busybox", "true"), env={**without, "HOME": str(home)},
                                capture_output=True, text=True)
        lines = result.stderr.splitlines()
        assert result.returncode == 125 and str(home) in lines[0] and lines[-1].startswith("hint: "), result
        assert "--root" in lines[-1] or "XDG_DATA_HOME" in lines[-1]
        env = {**without, "HOME": str(home), "XDG_RUNTIME_DIR": str(kelp.runtime_dir), "XDG_DATA_HOME": str(kelp.data)}
        done = subprocess.run(kelp.argv("run", "--rm", *NONE, "busybox", "echo", "alive"), env=env, capture_output=True, text=True)
        assert done.stdout == "alive\n" and done.stderr == "", done


def test_no_runtime_directory_and_that_of_another_user(kelp, agent, place):
    """cron sets none; su leaves the caller's."""
    env = {name: value for name, value in kelp.env.items() if name != "XDG_RUNTIME_DIR"}
    for runtime_dir in (None, "/root", "/run"):
        host = Host(kelp, agent, "mount -t tmpfs none /run/user 2>/dev/null || true")
        host.env = {**env, **({"XDG_RUNTIME_DIR": runtime_dir} if runtime_dir else {})}
        host("run", "-d", "--name", "c", *NONE, "busybox", "sleep", "100")
        assert host("exec", "c", "echo", "in").text == "in"
        assert host("ps", "--format", "{{.Names}}").text == "c"
        assert re.search(r"^! run directory .*kelp-run-", host("doctor").out, re.M)
        host("rm", "-f", "-t", "0", "c")
    shutil.rmtree(f"/tmp/kelp-run-{os.getuid()}", ignore_errors=True)


@pytest.fixture
def lost(kelp):
    """A container that runs, whose state in the run directory somebody has deleted."""
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sh", "-c", "echo said; echo kept >/file; exec sleep 100")
    until("it has spoken", lambda: kelp("logs", "c").text == "said" and kelp("cp", "c:/file", "-", code=None).code == 0)
    pid = int(kelp("inspect", "--format", "{{.State.Pid}}", "c").text)
    shutil.rmtree(kelp.run_dir)
    yield kelp
    kelp("rm", "-f", "-t", "0", "c")
    until("the container to end", lambda: not os.path.exists(f"/proc/{pid}"))
    assert kelp("ps", "-aq").text == ""


STATUS = ("ps", "-a", "--format", "{{.Names}} {{.State}}")


@pytest.mark.parametrize("words, out, afterwards", [
    (STATUS, "c running", "running"),
    (("logs", "c"), "said", "running"),
    (("inspect", "--format", "{{.State.Running}}", "c"), "true", "running"),
    (("cp", "c:/file", "-"), None, "running"),
    (("run", "--rm", *NONE, "busybox", "echo", "alive"), "alive", "running"),
    (("start", "c"), "c", "running"),
    (("stop", "-t", "0", "c"), "c", "exited"),
    (("kill", "c"), "c", "exited"),
    (("restart", "-t", "0", "c"), "c", "running"),
    (("rm", "-f", "-t", "0", "c"), "c", None)], ids=lambda words: words[0] if isinstance(words, tuple) else "")
def test_the_run_directory_deleted_under_running_containers(lost, words, out, afterwards):
    """Each command works, also as the first after it."""
    done = lost(*words)
    assert out is None or done.text == out
    until("the state to be so", lambda: lost(*STATUS).text == (f"c {afterwards}" if afterwards else ""))
    if words[0] == "restart":
        assert lost("exec", "c", "echo", "in").text == "in"


def test_exec_after_the_run_directory_was_deleted_says_what_to_do(lost):
    lines = lost("exec", "c", "true", code=125).err.splitlines()
    assert len(lines) == 2 and str(lost.run_dir) in lines[0] and lines[1] == "hint: kelp restart c"
    lost("restart", "-t", "0", "c")
    assert lost("exec", "c", "cat", "/file").text == "kept"


def test_after_a_reboot(kelp, agent):
    """The records are those of another boot: what ran then does not run now, whatever its number is today."""
    other_boot = "echo 11111111-2222-3333-4444-555555555555 >/run/kelp-test-boot; " \
        "mount --bind /run/kelp-test-boot /proc/sys/kernel/random/boot_id; rm /run/kelp-test-boot"
    kelp("run", "-d", "--name", "ran", *NONE, "busybox", "sleep", "100")
    pid = int(kelp("inspect", "--format", "{{.State.Pid}}", "ran").text)
    host = Host(kelp, agent, other_boot)
    assert host("ps", "--format", "{{.Names}}").text == ""
    state = json.loads(host("inspect", "ran").out)[0]["State"]
    assert state["Status"] == "exited" and not state["Running"], state
    assert host("run", "--rm", *NONE, "busybox", "echo", "alive").text == "alive"
    host("exec", "ran", "true", code=255)
    os.kill(pid, signal.SIGKILL)  # what a reboot does
    until("the container to end", lambda: not os.path.exists(f"/proc/{pid}"))
    host("start", "ran")
    assert host("exec", "ran", "echo", "again").text == "again"
    host("rm", "-f", "-t", "0", "ran")


# --- no user namespace -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("how", [{"deny_user_namespaces": True},
                                 {"deny": confine.DOCKER_DENIES, "deny_user_namespaces": True}], ids=["clone", "docker"])
def test_without_user_namespaces_images_can_be_moved_and_run_says_who_refuses(bare_kelp, busybox_archive, registry, place, how):
    def confined(*args, code=0):
        line = confine.command(bare_kelp.path, *args, **how)
        return bare_kelp(*line[1:], program=line[0], code=code)

    name = registry.push(f"oci-archive:{busybox_archive}", "moved:1")
    confined("pull", "-q", "--tls-verify=false", name)
    assert confined("image", "inspect", "--format", "{{.Os}}", name).text == "linux"
    confined("save", "-q", "--format", "oci-archive", "-o", place / "saved.tar", name)
    confined("rmi", name)
    confined("load", "-q", "-i", place / "saved.tar")
    assert confined("images", "-q").text
    result = confined("run", "--rm", name, "true", code=125)
    lines = [line for line in result.err.splitlines() if line]
    assert len(lines) == 2 and "seccomp" in lines[0], result
    assert lines[1].startswith("hint: ") and "--security-opt seccomp=unconfined" in lines[1], result
    # What was loaded without a user namespace is unpacked where there is one.
    assert bare_kelp("run", "--rm", *NONE, name, "echo", "alive").text == "alive"


# --- the caller's life -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("detach", [False, True], ids=["foreground", "detached"])
def test_die_with_parent(kelp, detach):
    if detach:  # the caller is a shell
        shell = subprocess.Popen(["sh", "-c", '"$0" run -d --rm --die-with-parent --name c --network none busybox sleep 100; '
                                  'echo up; exec sleep 100', kelp.path], env=kelp.env, stdout=subprocess.PIPE, text=True)
        kelp.children.append(shell)
        shell.stdout.readline(), shell.stdout.readline()
        tied = shell
    else:
        tied = kelp.start("run", "--rm", "--die-with-parent", "--name", "c", *NONE, "busybox", "sleep", "100")
        until("it runs", lambda: kelp("ps", "-q").text != "")
    assert len(kelp("ps", "-q").lines) == 1
    tied.kill()
    tied.wait()
    until("the container has gone", lambda: kelp("ps", "-aq").text == "")
    assert processes.wait_gone(2, {os.getpid()}) == [] or detach


def test_without_the_option_a_container_outlives_the_killed_kelp(kelp):
    child = kelp.start("run", "--name", "c", *NONE, "busybox", "sh", "-c", "echo up; exec sleep 100")
    assert child.stdout.readline() == b"up\n"  # until then its start would be undone
    child.kill()
    child.wait()
    time.sleep(0.2)
    assert kelp("ps", "--format", "{{.Names}}").text == "c"


def test_the_caller_of_kelp_takes_both_with_it(kelp):
    """kelp itself ends with its caller, and the container with kelp."""
    shell = subprocess.Popen(["sh", "-c", '"$0" run --rm --die-with-parent --network none busybox sleep 100; true', kelp.path],
                             env=kelp.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    kelp.children.append(shell)
    until("it runs", lambda: kelp("ps", "-q").text != "")
    shell.kill()
    shell.wait()
    until("the container has gone", lambda: kelp("ps", "-aq").text == "")


def test_where_nothing_ends_containers_at_logout_nothing_is_said(kelp):
    if os.path.exists(f"/run/systemd/users/{os.getuid()}"):
        pytest.skip("needs no-login-manager: logind knows this user")
    assert kelp("run", "-d", "--rm", *NONE, "busybox", "sleep", "100").err == ""
