"""Known ways out of a container. Each test plays the attack, and fails on a runtime without the guard against it.

What a peer lets through stands in peer_exceptions.txt, which shows that the test can fail.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

import pytest

from harness import processes

ALL_CAPS = ["CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID",
            "CAP_KILL", "CAP_MKNOD", "CAP_NET_ADMIN", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID",
            "CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE"]


def grant_everything(oci):
    oci.process["capabilities"] = {kind: list(ALL_CAPS) for kind in ("bounding", "effective", "permitted")}


def without_mounts(oci, *destinations):
    oci.config["mounts"] = [mount for mount in oci.config["mounts"]
                            if not any((mount["destination"] + "/").startswith(name + "/") for name in destinations)]


def digest(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def join_namespaces(oci, *kinds):
    """The next container lives in some namespaces of c1, as those of a pod do."""
    pid = oci.state()["pid"]
    paths = {kind: f"/proc/{pid}/ns/{'net' if kind == 'network' else kind}" for kind in kinds}
    oci.linux["namespaces"] = [{**entry, **({"path": paths[entry["type"]]} if entry["type"] in paths else {})}
                               for entry in oci.linux["namespaces"]]
    if "user" in kinds:
        del oci.linux["uidMappings"], oci.linux["gidMappings"]


@pytest.fixture
def outside(oci):
    """A directory of the host with a file in it that no container may reach."""
    directory = oci.place / "outside"
    directory.mkdir()
    (directory / "secret").write_text("a secret of the host\n")
    shutil.copy(oci.rootfs / "probe", directory / "probe")
    return directory


def listing(directory):
    return {path.name: (stat.filemode(path.lstat().st_mode), path.read_bytes() if path.is_file() else b"")
            for path in directory.iterdir()}


@contextlib.contextmanager
def leaked(directory, numbers):
    """Inheritable descriptors of a directory, as an engine leaks them."""
    opened = []
    for number in numbers:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        os.dup2(fd, number, inheritable=True)
        if fd != number:
            os.close(fd)
        opened.append(number)
    try:
        yield tuple(opened)
    finally:
        for number in opened:
            os.close(number)


def free_numbers(count, start=40):
    """Numbers above those that this process uses."""
    used = {int(name) for name in os.listdir("/proc/self/fd")}
    return [number for number in range(start, start + 200) if number not in used][:count]


@contextlib.contextmanager
def exchanging(oci, one, other):
    """Two names of the root filesystem are exchanged as fast as a process can, while the block runs."""
    racer = subprocess.Popen([oci.rootfs / "probe", "exchange", one, other], stdout=subprocess.PIPE, text=True)
    assert racer.stdout.readline() == "ready\n"
    try:
        yield
        assert racer.poll() is None, "the racer ended"
    finally:
        racer.kill()
        racer.wait()


class Console:
    """The engine's end of --console-socket: keeps the terminal's master."""

    def __init__(self, path):
        self.path, self.master = path, None
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.listener.settimeout(20)
        self.thread = threading.Thread(target=self._receive, daemon=True)
        self.thread.start()

    def _receive(self):
        with contextlib.suppress(OSError):
            link, _ = self.listener.accept()
            with link:
                _, fds, _, _ = socket.recv_fds(link, 64, 1)
                self.master = fds[0] if fds else None

    def read(self, text, timeout=10):
        self.thread.join(timeout)
        assert self.master is not None, "no terminal has come"
        seen, end = b"", time.monotonic() + timeout
        os.set_blocking(self.master, False)
        while text.encode() not in seen:
            assert time.monotonic() < end, seen
            try:
                seen += os.read(self.master, 4096)
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:
                break
        return seen.decode(errors="replace").replace("\r\n", "\n")

    def close(self):
        self.listener.close()
        if self.master is not None:
            os.close(self.master)


# ---- the runtime's own program --------------------------------------------------------------------------------------

@pytest.mark.parametrize("by", ["run", "exec"])
def test_own_program_is_not_overwritten(oci, by):
    """CVE-2019-5736: /proc/self/exe as the program of the container is the runtime itself. Held there by a pipe it can
    be opened from inside, and be written to when it has ended, wherever root of the container owns the file."""
    program = oci.place / "runtime-copy"
    at = next(index for index, word in enumerate(oci.base) if os.path.basename(str(word)) in ("kelp-oci", "crun", "runc"))
    shutil.copy(oci.base[at], program)
    program.chmod(0o755)
    plain, before = oci.base, digest(program)
    oci.base = [*plain[:at], str(program), *plain[at + 1:]]
    os.mkfifo(oci.rootfs / "held")
    grant_everything(oci)
    oci.create("overwrite-program", "/held", "15")
    oci.start()
    holding = ["/proc/self/exe", "--log", "/held", "list"]
    if by == "run":
        join_namespaces(oci, "pid", "user", "ipc", "network")
        oci.process["args"] = holding
        oci.write_config()
        oci.started.append("c2")
        words = ["run", "--bundle", oci.bundle, "c2"]
    else:
        words = ["exec", "c1", *holding]
    held = subprocess.Popen([*oci.base, *map(str, words)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL, env=oci.env, cwd=oci.bundle)
    oci.processes.append(held)
    # Nothing may run the program meanwhile, since it could not be written to: no looking at the state.
    end = time.monotonic() + 60
    while not any(word in oci.output() for word in ("nothing found", "errno", "ok\n")) and time.monotonic() < end:
        time.sleep(0.05)
    oci.base = plain
    assert digest(program) == before, oci.output()
    # A peer that is linked dynamically finds no libraries in this image, and is never there to be found.
    if oci.is_kelp:
        assert oci.output().startswith("found") and "errno" in oci.output(), "the attack did not come so far"


# ---- descriptors and directories of the host ------------------------------------------------------------------------

def test_leaked_descriptors_are_closed(oci, outside):
    """What the engine forgot to close is not open in the payload, neither of run nor of exec."""
    with leaked(outside, free_numbers(3)) as fds:
        assert oci.run("info", pass_fds=fds).json["fds"] == [0, 1, 2]
        oci.create("wait", id="c2")
        oci.start("c2")
        oci.output("ready")
        assert oci.exec("info", id="c2", pass_fds=fds).json["fds"] == [0, 1, 2]


@pytest.mark.parametrize("by", ["run", "exec"])
def test_working_directory_in_a_leaked_descriptor(oci, outside, by):
    """CVE-2024-21626: a working directory /proc/self/fd/N of a descriptor of the host."""
    fds = free_numbers(2)
    if by == "exec":
        oci.create("wait")
        oci.start()
        oci.output("ready")
    with leaked(outside, fds) as fds:
        numbers = [*range(3, 24), *fds]
        for number in numbers:
            cwd = f"/proc/self/fd/{number}"
            if by == "run":
                oci.process["cwd"] = cwd
                done = oci.run("cat", "secret", ";", "cat", "../outside/secret", ";", "ls", ".", id=f"r{number}",
                               code=None, pass_fds=fds)
            else:
                done = oci.exec("cat", "secret", ";", "cat", "../outside/secret", args=("--cwd", cwd), code=None,
                                pass_fds=fds)
            assert "a secret of the host" not in done.out, str(done)


@pytest.mark.parametrize("by", ["run", "exec"])
def test_working_directory_in_a_preserved_descriptor(oci, outside, by):
    """The same, with a descriptor that is meant to stay open: it may be used, but is no place in the container."""
    oci.base = ["sh", "-c", 'exec 3<"$0" && exec "$@"', str(outside), *oci.base]
    words, args = ("echo", "inside", ";", "cat", "secret"), ("--preserve-fds", "1")
    if by == "exec":
        oci.create("wait")
        oci.start()
        oci.output("ready")
        done = oci.exec(*words, args=(*args, "--cwd", "/proc/self/fd/3"), code=None)
    else:
        oci.process["cwd"] = "/proc/self/fd/3"
        done = oci.run(*words, args=args, code=None)
    assert "inside" not in done.out and done.code != 0, str(done)


@pytest.mark.parametrize("by", ["run", "exec"])
def test_program_in_a_leaked_descriptor(oci, outside, by):
    """The same way with the program: a path below /proc/self/fd/N would execute a file of the host."""
    fds = free_numbers(1)
    if by == "exec":
        oci.create("wait")
        oci.start()
        oci.output("ready")
    with leaked(outside, fds) as fds:
        program = f"/proc/self/fd/{fds[0]}/probe"
        if by == "run":
            oci.process["args"] = [program, "echo", "a program of the host"]
            done = oci.run(code=None, pass_fds=fds)
        else:
            done = oci("exec", "c1", program, "echo", "a program of the host", code=None, pass_fds=fds)
    assert "a program of the host" not in done.out and done.code != 0, str(done)


def test_working_directory_through_links_of_the_image(oci, outside):
    """A link that leads out of the root leads to a place inside of it, which is made there and not on the host."""
    (oci.rootfs / "absolute").symlink_to(outside)
    (oci.rootfs / "relative").symlink_to("../" * 12 + str(outside).lstrip("/"))
    for number, link in enumerate(("absolute", "relative")):
        oci.process["cwd"] = f"/{link}/made"
        done = oci.run("cat", "../secret", id=f"r{number}", code=None)
        assert "a secret" not in done.out, str(done)
    assert sorted(path.name for path in outside.iterdir()) == ["probe", "secret"]


def test_exec_is_not_looked_into(oci, outside):
    """A process of the container with all capabilities watches new ones for a way to the host while they join."""
    grant_everything(oci)
    oci.create("spy", str(outside / "secret"), "4")
    oci.start()
    entered, end = 0, time.monotonic() + 120
    while oci.state()["status"] == "running":
        assert time.monotonic() < end, "the spy does not end"
        entered += oci.exec("exit", "0", code=None).code == 0
    assert oci.output("\n") == "nothing seen\n" and entered > 0


def test_start_in_a_joined_pid_namespace_is_not_looked_into(oci, outside):
    """As above, for a second container in the pid namespace of the first, as in a pod."""
    grant_everything(oci)
    oci.create("spy", str(outside / "secret"), "4")
    oci.start()
    join_namespaces(oci, "pid", "user", "ipc", "network")
    entered, end = 0, time.monotonic() + 120
    while oci.state()["status"] == "running":
        assert time.monotonic() < end, "the spy does not end"
        entered += oci.run("exit", "0", id=f"j{entered}", code=None).code == 0
    assert oci.output("\n") == "nothing seen\n" and entered > 0


def test_mounts_do_not_go_through_descriptors(oci, outside):
    """/proc/self/fd/N/… as the destination of a mount: there lies what the engine, or the runtime itself, holds open."""
    plain = list(oci.config["mounts"])
    with leaked(outside, free_numbers(2)) as fds:
        for number in [*range(3, 20), *fds]:
            oci.config["mounts"] = [*plain, {"destination": f"/proc/self/fd/{number}/made", "type": "tmpfs", "source": "tmpfs"}]
            oci.run("exit", "0", id=f"r{number}", code=None, pass_fds=fds)
    assert sorted(path.name for path in outside.iterdir()) == ["probe", "secret"]


# ---- masks, read-only paths, /proc ----------------------------------------------------------------------------------

@pytest.mark.parametrize("of", ["image", "volume"])
def test_mask_source_is_not_the_images(oci, of):
    """CVE-2025-31133: files are masked with /dev/null; a link in its place would show another file, writable."""
    without_mounts(oci, "/dev")
    (oci.rootfs / "etc/secret").write_text("covered\n")
    (oci.rootfs / "etc/other").write_text("shown instead\n")
    dev = oci.rootfs / "dev"
    if of == "volume":
        dev = oci.place / "dev"
        (dev / "pts").mkdir(parents=True)
        oci.config["mounts"].append({"destination": "/dev", "type": "bind", "source": str(dev), "options": ["rbind"]})
    (dev / "null").symlink_to("/etc/other")
    oci.linux["maskedPaths"] = ["/etc/secret"]
    done = oci.run("cat", "/etc/secret", code=None)
    assert "shown instead" not in done.out and "covered" not in done.out, str(done)


def test_masks_follow_links_inside(oci):
    """A mask or read-only path that is a link stands for what the link means in the container."""
    (oci.rootfs / "etc/secret").write_text("covered\n")
    (oci.rootfs / "etc/fixed").write_text("fixed\n")
    (oci.rootfs / "masked").symlink_to("etc/secret")
    (oci.rootfs / "kept").symlink_to("/etc/fixed")
    oci.linux["maskedPaths"], oci.linux["readonlyPaths"] = ["/masked"], ["/kept"]
    done = oci.run("cat", "/etc/secret", ";", "overwrite", "/etc/fixed", "x", ";", "cat", "/etc/fixed", code=None)
    assert "covered" not in done.out and "EROFS" in done.out and "fixed" in done.out, str(done)


def test_masks_cover_later_mounts(oci):
    """A volume over a masked path is masked as well, and one over a read-only path is read-only."""
    volume = oci.place / "volume"
    volume.mkdir()
    (volume / "secret").write_text("covered\n")
    oci.config["mounts"] += [{"destination": path, "type": "bind", "source": str(volume), "options": ["rbind", "rw"]}
                             for path in ("/etc", "/home")]
    oci.linux["maskedPaths"], oci.linux["readonlyPaths"] = ["/etc/secret"], ["/home"]
    done = oci.run("cat", "/etc/secret", ";", "write", "/home/x", "1")
    assert "covered" not in done.out and "EROFS" in done.out, str(done)


@pytest.mark.parametrize("kind", ["proc", "sysfs"])
def test_kernel_file_systems_are_not_moved_by_links(oci, kind):
    """CVE-2019-16884, CVE-2023-28642: a link in place of /proc puts it where masks and labels do not look."""
    name = {"proc": "proc", "sysfs": "sys"}[kind]
    (oci.rootfs / name).rmdir()
    (oci.rootfs / "elsewhere").mkdir()
    (oci.rootfs / name).symlink_to("elsewhere")
    done = oci.run("ls", "/elsewhere", code=None)
    assert done.code != 0 and done.out == "", str(done)


def test_proc_at_another_place_stays_out_of_a_link(kelp_oci):
    """Links on the way to the place count as well."""
    oci = kelp_oci
    (oci.rootfs / "real/proc").mkdir(parents=True)
    (oci.rootfs / "way").symlink_to("real")
    oci.config["mounts"].append({"destination": "/way/proc", "type": "proc", "source": "proc"})
    done = oci.run("ls", "/real/proc", code=None)
    assert done.code != 0 and "/way/proc" in done.err and "link" in done.err, str(done)


def test_settings_reach_the_kernel_or_fail(oci):
    """CVE-2025-52881: a mount of the configuration over a part of /proc swallows what the runtime writes there."""
    false = oci.place / "false"
    (false / "net/ipv4").mkdir(parents=True)
    (false / "net/ipv4/ip_unprivileged_port_start").write_text("1024\n")
    oci.config["mounts"].append({"destination": "/proc/sys", "type": "bind", "source": str(false), "options": ["rbind"]})
    oci.linux["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "80"}
    oci.linux["readonlyPaths"] = []
    done = oci.run("exit", "0", code=None)
    assert (false / "net/ipv4/ip_unprivileged_port_start").read_text() == "1024\n", str(done)


# ---- races ----------------------------------------------------------------------------------------------------------

def test_mounts_do_not_follow_racing_links(oci, outside):
    """CVE-2021-30465: the directory on the way to a mount is exchanged with a link to the host while containers start."""
    (oci.rootfs / "data").mkdir()
    (oci.rootfs / "trap").symlink_to(outside)
    volume = oci.place / "volume"
    volume.mkdir()
    oci.config["mounts"] += [
        {"destination": "/data/tmpfs", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/data/deep/volume", "type": "bind", "source": str(volume), "options": ["rbind"]},
        {"destination": "/data/file", "type": "bind", "source": str(oci.rootfs / "probe"), "options": ["bind"]}]
    oci.process["cwd"] = "/data/work"
    with exchanging(oci, oci.rootfs / "data", oci.rootfs / "trap"):
        for number in range(40):
            oci.run("exit", "0", id=f"r{number}", code=None)
    assert sorted(path.name for path in outside.iterdir()) == ["probe", "secret"]
    assert str(outside) not in open("/proc/self/mountinfo").read()


def test_proc_is_not_moved_by_racing_links(oci):
    """Whenever the container starts, procfs is at /proc with its masks, and nowhere else."""
    (oci.rootfs / "elsewhere").mkdir()
    (oci.rootfs / "trap").symlink_to("elsewhere")
    oci.linux["maskedPaths"], oci.linux["readonlyPaths"] = ["/proc/timer_list"], ["/proc/sys"]
    oci.process["cwd"] = "/"
    with exchanging(oci, oci.rootfs / "proc", oci.rootfs / "trap"):
        for number in range(40):
            done = oci.run("cat", "/elsewhere/version", id=f"r{number}", code=None)
            assert "Linux version" not in done.out, str(done)


# ---- terminals, logs, files of the image that the runtime opens ------------------------------------------------------

@pytest.mark.parametrize("link", ["dev/console", "dev/pts", "dev/ptmx", "dev"])
def test_terminal_over_links_of_the_image(oci, outside, link):
    """CVE-2025-52565 and its like: /dev/console, or a directory on the way to it, is a link in the image."""
    if link != "dev":
        without_mounts(oci, "/dev")
        oci.config["mounts"].append({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                                     "options": ["newinstance", "ptmxmode=0666", "mode=0620"]})
        (oci.rootfs / link).symlink_to(outside / "secret" if link != "dev/pts" else outside)
    else:
        (oci.rootfs / "dev").rmdir()
        (oci.rootfs / "dev").symlink_to(outside)
    before = listing(outside)
    oci.process["terminal"] = True
    oci.process["args"] = ["/probe", "cat", "/dev/console/secret", ";", "echo", "ended"]
    oci.write_config()
    console = Console(oci.place / "console")
    oci.started.append("c1")
    try:
        done = oci("create", "--bundle", oci.bundle, "--console-socket", console.path, "c1", code=None)
        if done.code == 0:
            oci.start()
            assert "a secret of the host" not in console.read("ended")
    finally:
        oci("delete", "--force", "c1", code=None)
        console.close()
    assert listing(outside) == before


def test_terminal_in_a_directory_that_is_a_link_of_the_image(oci, outside):
    """Without a tmpfs on /dev, its files are made where the image says that /dev is: below its root."""
    without_mounts(oci, "/dev")
    (oci.rootfs / "dev").rmdir()
    (oci.rootfs / "dev").symlink_to(outside)
    before = listing(outside)
    oci.process["terminal"] = True
    oci.write_config()
    console = Console(oci.place / "console")
    oci.started.append("c1")
    try:
        oci("create", "--bundle", oci.bundle, "--console-socket", console.path, "c1", code=None)
    finally:
        oci("delete", "--force", "c1", code=None)
        console.close()
    assert listing(outside) == before


def test_console_is_not_moved_by_a_link(oci):
    """The terminal covers /dev/console, and no file that a link there names: not even through a descriptor that the runtime
    has of the new root, whose number an image can guess."""
    (oci.rootfs / "tmp/target").write_text("a file of the image\n")
    without_mounts(oci, "/dev")
    oci.config["mounts"].append({"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                                 "options": ["newinstance", "ptmxmode=0666", "mode=0620"]})
    oci.process["terminal"] = True
    oci.process["args"] = ["/probe", "cat", "/proc/self/mountinfo", ";", "echo", "ended"]
    oci.write_config()
    link, ran = oci.rootfs / "dev/console", 0
    for number in range(3, 24):
        link.unlink(missing_ok=True)
        link.symlink_to(f"/proc/self/fd/{number}/tmp/target")
        console = Console(oci.place / f"console{number}")
        oci.started.append(f"c{number}")
        try:
            if oci("create", "--bundle", oci.bundle, "--console-socket", console.path, f"c{number}", code=None).code == 0:
                oci.start(f"c{number}")
                assert "/tmp/target" not in console.read("ended")
                ran += 1
        finally:
            oci("delete", "--force", f"c{number}", code=None)
            console.close()
    assert ran > 0


@pytest.mark.parametrize("what", ["pipe", "file"])
def test_a_false_devpts_is_refused(kelp_oci, what):
    """Without a devpts, /dev/pts/ptmx is whatever the image says: it is not opened for ever, nor taken for a terminal."""
    oci = kelp_oci
    without_mounts(oci, "/dev")
    (oci.rootfs / "dev/pts").mkdir()
    if what == "pipe":
        os.mkfifo(oci.rootfs / "dev/pts/ptmx")
    else:
        (oci.rootfs / "dev/pts/ptmx").write_text("")
    oci.process["terminal"] = True
    oci.write_config()
    console = Console(oci.place / "console")
    done = oci("create", "--bundle", oci.bundle, "--console-socket", console.path, "c1", code=None)
    console.close()
    assert done.code != 0 and "devpts" in done.err, str(done)


@pytest.mark.parametrize("what", ["pipe", "device", "huge"])
def test_passwd_of_the_image_cannot_hold_a_start(oci, what):
    """HOME is looked up in the image's /etc/passwd, which may be a pipe, a device without an end, or very large."""
    passwd = oci.rootfs / "etc/passwd"
    if what == "pipe":
        os.mkfifo(passwd)
    elif what == "device":
        passwd.symlink_to("/dev/zero")
    else:
        with open(passwd, "wb") as file:
            file.truncate(1 << 26)
    oci.process["env"] = ["PATH=/bin"]
    try:
        done = oci.run("echo", "started", code=None, timeout=20)
    finally:
        if what == "pipe":  # let go of those that wait for a writer
            os.close(os.open(passwd, os.O_RDWR | os.O_NONBLOCK))
    assert done.out == "started\n" or done.code != 0


def test_pid_file_replaces_a_link(oci, outside):
    """A pid file whose name is a link: the link is replaced, not the file that it names."""
    (oci.place / "pid").symlink_to(outside / "secret")
    oci.create("exit", "0", args=("--pid-file", oci.place / "pid"))
    assert (outside / "secret").read_text() == "a secret of the host\n"
    assert int((oci.place / "pid").read_text()) > 0 and not (oci.place / "pid").is_symlink()


def test_log_is_not_written_through_a_link(oci, outside):
    """A log in a directory that others can write to, and in its place a link to a file that only we can write."""
    (oci.place / "log").symlink_to(outside / "secret")
    oci.base += ["--log", str(oci.place / "log")]
    assert oci("state", "no-such-container", code=None).code != 0
    assert (outside / "secret").read_text() == "a secret of the host\n"


def test_log_may_be_a_descriptor(kelp_oci):
    for path in ("/dev/stderr", "/proc/self/fd/2"):
        done = kelp_oci("--log", path, "--log-format", "json", "state", "no-such-container", code=None)
        assert json.loads(done.err.splitlines()[0])["level"] == "error", str(done)


# ---- privileges ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("nnp", [True, False])
def test_no_new_privileges_stops_set_user_id_programs(oci, nnp):
    """A set-user-id program of the container's root gives its rights to another user, unless it is forbidden."""
    program = oci.rootfs / "set-user-id"
    shutil.copy(oci.rootfs / "probe", program)
    program.chmod(0o4755)
    oci.process["user"] = {"uid": 1000, "gid": 1000}
    oci.process["noNewPrivileges"] = nnp
    oci.process["args"] = ["/set-user-id", "info"]
    assert oci.run().json["uids"] == [1000, 1000 if nnp else 0, 1000 if nnp else 0]


def test_filter_is_loaded_last(oci):
    """With no_new_privs a filter may forbid all that the runtime itself needs to become the container's user."""
    forbidden = ["setresuid", "setresgid", "setuid", "setgid", "setgroups", "capset", "capget", "chdir", "fchdir", "mount",
                 "umount2", "pivot_root", "chroot", "sethostname", "setdomainname", "setsid", "dup2", "dup3", "unshare",
                 "setns", "keyctl", "prctl", "umask", "socket", "connect", "sendmsg", "recvmsg", "openat2", "move_mount"]
    oci.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
                            "syscalls": [{"names": forbidden[:-11] if not oci.is_kelp else forbidden,
                                          "action": "SCMP_ACT_KILL_PROCESS"}]}
    oci.process["user"] = {"uid": 33, "gid": 33}
    assert oci.run("echo", "started").out == "started\n"


@pytest.mark.not_nested  # root of the namespace around it may set groups there
def test_setgroups_in_a_user_namespace_of_one_id(oci):
    """CVE-2014-8989: who may drop groups in a namespace of his own gets by files that deny one of them."""
    oci.linux["uidMappings"] = [{"containerID": 0, "hostID": os.getuid(), "size": 1}]
    oci.linux["gidMappings"] = [{"containerID": 0, "hostID": os.getgid(), "size": 1}]
    for mount in oci.config["mounts"]:
        mount["options"] = [word for word in mount.get("options", []) if word != "gid=5"]
    out = oci.run("info", ";", "try", "setgroups").lines
    assert json.loads(out[0])["setgroups"].strip() == "deny"
    assert "EPERM" in out[1]


def test_groups_of_the_caller_stay_outside(oci):
    """With mapped groups none of the caller's own are left in the container."""
    if oci.nested:  # where the caller can be given one
        at = len(oci.nested.prefix())
        oci.base = [*oci.base[:at], "setpriv", "--groups", "7", *oci.base[at:]]
    info = oci.info()
    assert set(info["groups"]) <= {0}, info["groups"]


# ---- other processes -------------------------------------------------------------------------------------------------

STATE_OF = {"kelp-oci": ("state.json", "pid", "start_time"), "crun": ("status", "pid", "process-start-time"),
            "runc": ("state.json", "init_process_pid", "init_process_start")}


def start_ticks(pid):
    """Field 22 of /proc/PID/stat; see proc(5)."""
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])


A_THREAD = "import threading as t, time; t.Thread(target=time.sleep, args=(1000,)).start(); print(t.enumerate()[1].native_id)"


def bystander_after(ticks, kind):
    """(process, number) of a process, or of a second thread of one, that began in a later clock tick (10 ms). The kernel
    cannot give a number away again within one, since all others come first; a test, which claims that it did, can be
    that quick."""
    while True:
        process = subprocess.Popen([sys.executable, "-u", "-c", A_THREAD] if kind == "thread" else ["sleep", "1000"],
                                   stdout=subprocess.PIPE, text=True)
        number = int(process.stdout.readline()) if kind == "thread" else process.pid
        if start_ticks(number) > ticks:
            return process, number
        process.kill()
        process.wait()


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_reused_pid_is_left_alone(oci, kind):
    """The container has died and another process, or a thread of one, has got its number: nothing reaches that one."""
    oci.create("wait")
    oci.start()
    oci.output("ready")
    name, pid_key, time_key = STATE_OF[oci.name.removesuffix("-nested")]
    path = oci.place / "state/c1" / name
    state = json.loads(path.read_text())
    assert pid_key in state and time_key in state, state.keys()
    os.kill(state[pid_key], signal.SIGKILL)
    oci.wait_status("stopped")
    bystander, state[pid_key] = bystander_after(int(state[time_key]), kind)
    try:
        path.write_text(json.dumps(state))
        assert oci.state()["status"] == "stopped"
        for words in (("kill", "c1", "KILL"), ("kill", "--all", "c1", "KILL"), ("exec", "c1", "/probe", "echo", "inside"),
                      ("pause", "c1"), ("start", "c1")):
            done = oci(*words, code=None)
            assert "inside" not in done.out, str(done)
            assert bystander.poll() is None, str(done)
        oci("delete", "--force", "c1", code=None)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_exec_in_a_dying_container(kelp_oci):
    """Whenever the container ends, an exec ends as well, with a status, and leaves no process."""
    oci = kelp_oci
    before = {pid for pid, _, _ in processes.descendants()}
    for number in range(25):
        id = f"d{number}"
        oci.create("sleep", "0.05", id=id)
        oci.start(id)
        deadline = time.monotonic() + 20
        while oci.exec("echo", "inside", id=id, code=None, timeout=20).code == 0:
            assert time.monotonic() < deadline
        oci("delete", "--force", id)
    left, end = {0}, time.monotonic() + 10
    while left and time.monotonic() < end:
        processes.reap_orphans()
        left = {pid for pid, state, _ in processes.descendants() if state != "Z"} - before
    assert not left, [processes.describe(pid) for pid in left]


def tasks_of_this_user():
    """As RLIMIT_NPROC counts them: threads, too."""
    count = 0
    for path in pathlib.Path("/proc").glob("[0-9]*/task"):
        with contextlib.suppress(OSError):
            count += len(os.listdir(path)) if path.stat().st_uid == os.getuid() else 0
    return count


# The sealed copy of a program that belongs to the caller is a file too, of many megabytes in a build for debugging.
VALUES = {"as": [2 << 20, 4 << 20, 6 << 20, 8 << 20, 12 << 20, 32 << 20],
          "data": [16 << 10, 256 << 10, 1 << 20, 4 << 20],
          "nofile": [*range(3, 16), 20, 40], "fsize": [0, 1, 512, 4096, 1 << 30]}


def state_directories(oci):
    left = (oci.place / "state").iterdir() if (oci.place / "state").exists() else []
    return [path.name for path in left if not path.name.startswith(".new-")]


@pytest.mark.parametrize("limit", [*VALUES, "nproc"])
def test_create_under_limits_of_the_caller_leaves_nothing(kelp_oci, limit):
    """Out of memory, of descriptors, of file size, of processes at any step of a start: an error of one line, and nothing
    left."""
    oci = kelp_oci
    # That many of the user's are there already, this one's own programs among them.
    values = VALUES.get(limit) or [tasks_of_this_user() + more for more in (0, 1, 2, 3, 4, 5, 6, 8, 500)]
    oci.config["process"]["args"] = ["/probe", "echo", "started"]
    plain, started = oci.base, 0
    for value in values:
        oci.base = ["prlimit", f"--{limit}={value}", *plain]
        done = oci.run(code=None, id=f"l{value}")
        oci.base = plain
        if done.code == 0:
            assert done.out == "started\n", str(done)
            started += 1
        else:
            assert done.out == "", str(done)
        if done.code < 0:  # killed by the kernel at a write: whoever looks next tidies up
            oci("state", f"l{value}", code=None)
        assert state_directories(oci) == [], str(done)
    assert started > 0, "the largest value is enough"


@pytest.mark.parametrize("limit", ["as", "nofile", "nproc"])
def test_exec_under_limits_of_the_caller_leaves_nothing(kelp_oci, limit):
    """The same for another process in a container, which goes on."""
    oci = kelp_oci
    oci.create("wait")
    oci.start()
    oci.output("ready")
    values = VALUES.get(limit) or [tasks_of_this_user() + more for more in (0, 1, 2, 3, 4, 5, 6, 8, 500)]
    plain, started = oci.base, 0
    for value in values:
        oci.base = ["prlimit", f"--{limit}={value}", *plain]
        done = oci.exec("echo", "started", code=None)
        oci.base = plain
        assert done.out == ("started\n" if done.code == 0 else ""), str(done)
        started += done.code == 0
        assert oci.state()["status"] == "running", str(done)
        assert json.loads(oci("ps", "--format", "json", "c1").out) == [oci.state()["pid"]], str(done)
    assert started > 0, "the largest value is enough"


def test_each_guard_and_its_tests_are_where_the_table_says():
    """without_guards.py takes them out one by one; that it still can is seen here, in a moment."""
    import without_guards
    assert list(without_guards.wrong_entries()) == []
