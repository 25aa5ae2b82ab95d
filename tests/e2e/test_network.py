"""Networks and published ports, and the story of a real server: nginx of Debian, from a registry."""

import json
import os
import re
import socket
import subprocess
import threading
import time
import urllib.request

import pytest

from harness import images, needs, programs
from harness.registry import free_port
from harness.waiting import until


def fetch(url, timeout=5):
    return urllib.request.urlopen(url, timeout=timeout).read().decode()


def answers(url):
    def look():
        try:
            return fetch(url, 1)
        except OSError:
            return None
    return until(f"{url} answers", look, 20)


# --- the main job ----------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def nginx(registry, nginx_archive):
    return registry.push(f"oci-archive:{nginx_archive}:nginx:latest", "debian/nginx:1")


def test_a_server_from_a_registry(bare_kelp, nginx):
    needs.need("tun")
    kelp, port = bare_kelp, free_port()
    kelp("run", "-d", "--tls-verify=false", "--name", "web", "-p", f"{port}:80", nginx, timeout=300)
    assert answers(f"http://127.0.0.1:{port}/") == "<h1>grown by kelp</h1>\n"
    until("the request is in the log", lambda: "GET / HTTP/1.1" in kelp("logs", "web").out)
    result = kelp("exec", "web", "nginx", "-t")
    assert "test is successful" in result.err
    assert kelp("port", "web").text == f"80/tcp -> 0.0.0.0:{port}"
    start = time.monotonic()
    kelp("stop", "web")
    assert time.monotonic() - start < 8
    assert kelp("inspect", "--format", "{{.State.ExitCode}}", "web").text == "0"
    kelp("start", "web")
    assert "grown" in answers(f"http://127.0.0.1:{port}/")
    kelp("rm", "-f", "web")
    with pytest.raises(OSError):
        until("the port is closed", lambda: not fetch(f"http://127.0.0.1:{port}/", 1), 3)


def test_the_log_has_the_address_of_a_client_elsewhere(bare_kelp, nginx, agent):
    needs.need("tun")
    kelp, port = bare_kelp, free_port()
    client, host = agent("address")
    kelp("run", "-d", "--tls-verify=false", "--name", "web", "-p", f"{port}:80", nginx, timeout=300)
    answers(f"http://127.0.0.1:{port}/")
    assert agent("fetch", url=f"http://{host}:{port}/who").strip() == client
    until("the client's address in the log", lambda: re.search(rf"^{re.escape(client)} .*GET /who", kelp("logs", "web").out,
                                                               re.M))


def test_three_at_once_share_the_layers(bare_kelp, nginx):
    needs.need("tun")
    kelp = bare_kelp
    kelp("pull", "-q", "--tls-verify=false", nginx, timeout=300)
    ports = [free_port() for _ in range(3)]
    children = [kelp.start("run", "-d", "--name", f"web{n}", "-p", f"{port}:80", nginx) for n, port in enumerate(ports)]
    for child in children:
        assert child.wait(timeout=120) == 0, child.stderr.read()
    for port in ports:
        answers(f"http://127.0.0.1:{port}/")
    assert len(list((kelp.store / "layers").glob("*/*/diff"))) == 2
    kelp("exec", "web0", "sh", "-c", "echo changed > /srv/www/index.html")
    assert fetch(f"http://127.0.0.1:{ports[0]}/") == "changed\n"
    assert fetch(f"http://127.0.0.1:{ports[1]}/") == "<h1>grown by kelp</h1>\n"


# --- modes -----------------------------------------------------------------------------------------------------------

def test_default_network_reaches_out(kelp):
    needs.need("tun")
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        threading.Thread(target=lambda: listener.accept()[0].sendall(b"from the host\n"), daemon=True).start()
        out = kelp("run", "--rm", "--network", "slirp4netns:allow_host_loopback=true", "busybox", "nc", "10.0.2.2",
                   str(listener.getsockname()[1]), timeout=30).out
    assert out == "from the host\n"


def test_host_loopback_is_closed_by_default(kelp):
    needs.need("tun")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        kelp("run", "--rm", "busybox", "nc", "-w", "2", "10.0.2.2", str(listener.getsockname()[1]), code=1, timeout=30)


def test_default_interface_and_resolver(kelp):
    needs.need("tun")
    out = kelp("run", "--rm", "busybox", "sh", "-c", "ip -o -4 addr show tap0; cat /etc/resolv.conf").out
    assert "10.0.2.100/24" in out and "nameserver 10.0.2.3" in out


def test_mtu_network_and_ipv6_of_slirp4netns(kelp):
    """In the interface, in the files that are made from it, and for what is forwarded into it."""
    needs.need("tun")
    port = free_port()
    kelp("run", "-d", "--name", "c", "--network", "slirp4netns:mtu=1400,cidr=10.99.7.0/24,port_handler=slirp4netns", "-p",
         f"127.0.0.1:{port}:8000", "busybox", *SERVE)
    out = kelp("exec", "c", "sh", "-c", "ip -o -4 addr show tap0; cat /sys/class/net/tap0/mtu /etc/resolv.conf /etc/hosts").out
    assert " 10.99.7.100/24 " in out and "\n1400\n" in out and "nameserver 10.99.7.3\n" in out, out
    assert re.search(r"^10\.99\.7\.100\s.*\bc$", out, re.M), out
    assert answered(port) == b"served\n"
    look = "for i in $(seq 100); do grep ' tap0$' /proc/net/if_inet6 | grep '^fd' && exit; sleep 0.1; done; echo none"
    if os.path.exists("/proc/net/if_inet6"):
        assert kelp("run", "--rm", "--network", "slirp4netns:enable_ipv6=true", "busybox", "sh", "-c", look).out.startswith("fd")
        assert kelp("run", "--rm", "busybox", "sh", "-c", look.replace("100", "5")).text == "none"


def test_outbound_address_of_slirp4netns(kelp):
    """The host's side of a connection has the address that was named; that of the other kind is handed on."""
    needs.need("tun")
    seen = []

    def serve(listener):
        link, address = listener.accept()
        seen.append(address[0])
        link.sendall(b"heard\n")
        link.close()

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        mode = "slirp4netns:allow_host_loopback=true,outbound_addr=127.0.0.2"
        assert kelp("run", "--rm", "--network", mode, "busybox", "nc", "10.0.2.2", str(listener.getsockname()[1]), timeout=30).out == "heard\n"
    assert seen == ["127.0.0.2"]
    from harness import processes
    kelp("run", "-d", "--name", "c", "--network", "slirp4netns:enable_ipv6=true,outbound_addr6=::1", "busybox", "sleep", "100")
    (pid,) = [pid for pid, state, name in processes.descendants() if name.startswith("slirp4netns") and state != "Z"]
    assert b"--outbound-addr6=::1" in open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0")


@pytest.mark.parametrize("option, says, hint", [
    ("mtu=12", "mtu.*12.*68 and 65521", None), ("cidr=10.0.0.0", "cidr.*10.0.0.0", None), ("cidr=10.0.0.0/30", "cidr.*25 bits", None),
    ("enable_ipv6=maybe", "enable_ipv6.*maybe", None), ("warp=1", "unknown option.*warp", None),
    ("port_handler=rootlesskit", "port_handler=rootlesskit is not supported", "leave the option out")])
def test_options_of_slirp4netns_that_cannot_be_are_refused(kelp, option, says, hint):
    kelp.fails("run", "--rm", "--network", f"slirp4netns:{option}", "busybox", "true", says=says, hint=hint)
    assert kelp("ps", "-aq").text == ""


def test_none_has_only_loopback_and_it_works(kelp):
    out = kelp("run", "--rm", "--network", "none", "busybox", "sh", "-c",
               "ls /sys/class/net; (echo hi | nc -l -p 90 &) ; sleep 0.3; nc 127.0.0.1 90").out
    assert out == "lo\nhi\n"


def test_host(kelp):
    inside = kelp("run", "--rm", "--network", "host", "busybox", "readlink", "/proc/self/ns/net").text
    assert inside == os.readlink("/proc/self/ns/net")


def test_network_of_another_container(kelp):
    kelp("run", "-d", "--name", "first", "--network", "none", "--hostname", "shared-name", "busybox", "sleep", "100")
    show = ("readlink", "/proc/self/ns/net")
    first = kelp("exec", "first", *show).text
    assert kelp("run", "--rm", "--network", "container:first", "busybox", *show).text == first
    kelp("run", "-d", "--name", "second", "--network", "container:first", "busybox", "nc", "-l", "-p", "80", "-e", "echo", "low")
    until("port 80 answers in the shared namespace",
          lambda: kelp("exec", "first", "nc", "-w", "1", "127.0.0.1", "80", code=None).out == "low\n")
    kelp("run", "--rm", "--network", "container:first", "--cap-add", "NET_ADMIN", "busybox", "ip", "link", "set", "lo",
         "mtu", "1400")
    assert "mtu 1400" in kelp("exec", "first", "ip", "link", "show", "lo").out
    assert kelp("exec", "second", "echo", "x", code=None).code in (0, 255)


def test_ipc_of_another_container(kelp):
    kelp("run", "-d", "--name", "first", "--network", "none", "--ipc", "shareable", "busybox", "sh", "-c",
         "echo memory > /dev/shm/f; sleep 100")
    until("the file", lambda: kelp("exec", "first", "cat", "/dev/shm/f", code=None).text == "memory")
    show = "readlink /proc/self/ns/ipc"
    first = kelp("exec", "first", "sh", "-c", show).text
    out = kelp("run", "--rm", "--network", "none", "--ipc", "container:first", "busybox", "sh", "-c",
               show + "; cat /dev/shm/f").lines
    assert out == [first, "memory"]


def test_kernel_settings_of_shared_namespaces(kelp):
    """They are those of the network and of the IPC namespace, whoever sets them; the host's are not to be had."""
    kelp("run", "-d", "--name", "first", "--network", "none", "--ipc", "shareable", "busybox", "sleep", "100")
    show = ("cat", "/proc/sys/net/ipv4/ip_default_ttl", "/proc/sys/kernel/msgmax", "/proc/sys/fs/mqueue/msg_max")
    own = kelp("exec", "first", *show).lines
    wanted = ["77", "9000", "12"]
    assert not set(own) & set(wanted)
    settings = [word for name, value in zip(("net.ipv4.ip_default_ttl", "kernel.msgmax", "fs.mqueue.msg_max"), wanted)
                for word in ("--sysctl", f"{name}={value}")]
    assert kelp("run", "--rm", "--network", "container:first", "--ipc", "container:first", *settings, "busybox", *show).lines == wanted
    assert kelp("exec", "first", *show).lines == wanted
    for space, setting in (("network", "net.ipv4.ip_default_ttl=77"), ("ipc", "kernel.msgmax=9000")):
        kelp.fails("run", "--rm", *(("--network", "none") if space == "ipc" else ()), f"--{space}", "host", "--sysctl", setting, "busybox",
                   "true", says=f"{setting.split('=')[0]}.*host's {space}")


# --- files -----------------------------------------------------------------------------------------------------------

def test_hosts_file(kelp):
    needs.need("tun")
    out = kelp("run", "--rm", "--name", "namer", "--hostname", "hosty", "--add-host", "db:10.1.2.3", "busybox", "cat",
               "/etc/hosts").out
    words = {tuple(line.split()) for line in out.splitlines() if line and not line.startswith("#")}
    assert any(line[0] == "127.0.0.1" and "localhost" in line for line in words)
    assert any(line[0] == "10.1.2.3" and "db" in line for line in words)
    assert any("host.containers.internal" in line and "host.docker.internal" in line for line in words)
    assert any("hosty" in line and "namer" in line for line in words)


def test_dns_options(kelp):
    out = kelp("run", "--rm", "--network", "host", "--dns", "192.0.2.7", "--dns-search", "example.org", "--dns-option",
               "ndots:3", "busybox", "cat", "/etc/resolv.conf").lines
    assert "nameserver 192.0.2.7" in out and "search example.org" in out and "options ndots:3" in out


# --- published ports -------------------------------------------------------------------------------------------------

SERVE = ("sh", "-c", "while :; do echo served | nc -l -p 8000; done")


def test_publish_forms(kelp):
    needs.need("tun")
    port = free_port()
    kelp("run", "-d", "--name", "a", "-p", f"127.0.0.1:{port}:8000", "-p", "8001", "-p", "127.0.0.1::8002/tcp", "busybox", *SERVE)
    lines = kelp("port", "a").lines
    assert re.search(r"8002/tcp -> 127\.0\.0\.1:\d+", "\n".join(lines))
    assert f"8000/tcp -> 127.0.0.1:{port}" in lines and len(lines) == 3
    assert re.search(r"8001/tcp -> 0\.0\.0\.0:\d+", "\n".join(lines))
    assert kelp("port", "a", "8000").text == f"127.0.0.1:{port}"
    kelp.fails("port", "a", "8009", says="8009")

    assert answered(port) == b"served\n"
    ports = json.loads(kelp("inspect", "a").out)[0]["NetworkSettings"]["Ports"]
    assert ports["8000/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": str(port)}]
    kelp("stop", "-t", "0", "a")
    assert kelp("port", "a").out == kelp("port", "a", "8000").out == kelp("port", "a", "8009").out == ""


def answered(port):
    """What a server that speaks first says on a port of the loopback."""
    def look():
        with socket.create_connection(("127.0.0.1", port), 2) as link:
            link.settimeout(2)
            return link.recv(100)
    return until(f"port {port} serves", lambda: _quiet(look), 20)


def _quiet(function):
    try:
        return function()
    except OSError:
        return False


@pytest.fixture
def udp(kelp, place):
    """kelp with an image whose /probe answers datagrams; Debian's busybox cannot."""
    needs.need("tun")
    probe = images.LayerTar().file("probe", (programs.build_dir() / "tests/payload/probe").read_bytes(), mode=0o755)
    kelp("load", "-q", "-i", images.busybox_image([probe]).write_archive(place / "udp.tar", "localhost/udp:1"))
    return kelp


def echo_server(kelp, name, *options):
    kelp("run", "-d", "--name", name, *options, "udp:1", "/probe", "udp-echo", "9000")
    until("the payload listens", lambda: kelp("logs", name).out == "listening\n")


def echoes(address, port, data=b"ping"):
    def look():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            link.settimeout(1)
            link.sendto(data, (address, port))
            return link.recv(65536) == data
    return _quiet(look)


def test_udp(udp, agent):
    """There and back, for a small datagram and for the largest that one packet takes."""
    port, (_, host) = free_port(), agent("address")
    echo_server(udp, "u", "-p", f"{port}:9000/udp")
    assert udp("port", "u").text == f"9000/udp -> 0.0.0.0:{port}"
    for data in (b"ping", os.urandom(1400)):
        until("the echo", lambda: echoes(host, port, data), 20)
    with pytest.raises(OSError):  # TCP is another port of the same number
        socket.create_connection(("127.0.0.1", port), 2).close()


def test_udp_from_the_loopback_needs_the_loopback(udp):
    """slirp4netns shows a client on 127.0.0.1 as 10.0.2.2 and, with the host's loopback closed, drops what goes back."""
    port = free_port()
    echo_server(udp, "u", "--network", "slirp4netns:allow_host_loopback=true", "-p", f"127.0.0.1:{port}:9000/udp")
    until("the echo", lambda: echoes("127.0.0.1", port), 20)


def test_publish_all(kelp, place):
    """Each port that the image exposes or the caller does, on a free port of the host."""
    needs.need("tun")
    config = {"ExposedPorts": {"8000/tcp": {}, "9000/udp": {}}}
    kelp("load", "-q", "-i", images.busybox_image(config=config).write_archive(place / "p.tar", "localhost/ports:1"))
    kelp("run", "-d", "--name", "all", "-P", "--expose", "8001", "ports:1", *SERVE)
    found = dict(line.split(" -> 0.0.0.0:") for line in kelp("port", "all").lines)
    assert set(found) == {"8000/tcp", "8001/tcp", "9000/udp"} and len(set(found.values())) == 3
    assert answered(int(found["8000/tcp"])) == b"served\n"


def test_a_range(kelp):
    needs.need("tun")
    base = next(p for p in iter(free_port, None) if p < 60000)
    serve = "for p in 8000 8001 8002; do (while :; do echo served $p | nc -l -p $p; done) & done; wait"
    kelp("run", "-d", "--name", "r", "-p", f"{base}-{base + 2}:8000-8002", "busybox", "sh", "-c", serve)
    assert len(kelp("port", "r").lines) == 3
    for n in range(3):
        assert answered(base + n) == f"served {8000 + n}\n".encode()


def test_a_taken_port_is_named(kelp):
    needs.need("tun")
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        port = listener.getsockname()[1]
        result = kelp("run", "-d", "-p", f"{port}:80", "busybox", "sleep", "100", code=None)
    assert result.code == 126 and str(port) in result.err and "in use" in result.err
    assert kelp("ps", "-q").text == ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 0))
        port = taken.getsockname()[1]
        kelp.fails("run", "-d", "-p", f"{port}:80/udp", "busybox", "sleep", "100", says=f"{port}.*in use", code=126)
    assert kelp("ps", "-q").text == ""


def test_a_privileged_port_is_named(kelp):
    needs.need("tun")
    if int(open("/proc/sys/net/ipv4/ip_unprivileged_port_start").read()) <= 81:
        needs.skip("privileged-ports")
    result = kelp("run", "-d", "-p", "81:80", "busybox", "sleep", "100", code=None)
    assert result.code == 126 and "81" in result.err and "ip_unprivileged_port_start" in result.err


def test_an_ipv6_bind_is_refused_with_the_reason(kelp):
    needs.need("tun")
    kelp.fails("run", "-d", "-p", "[::1]:18099:80", "busybox", "sleep", "100", says="::1.*(IPv6.*slirp4netns|slirp4netns.*IPv6)")
    assert kelp("ps", "-aq").text == ""


def test_the_port_is_free_again(kelp):
    needs.need("tun")
    port = free_port()
    for _ in range(3):
        kelp("run", "-d", "--name", "again", "-p", f"{port}:8000", "busybox", "sleep", "100")
        kelp("rm", "-f", "-t", "0", "again")


def test_inside_a_low_port_may_be_bound(kelp):
    needs.need("tun")
    assert kelp("run", "--rm", "busybox", "sh", "-c", "(echo low | nc -l -p 80 &); sleep 0.3; nc 127.0.0.1 80").out == "low\n"


def test_slirp_is_confined(kelp):
    """Its sandbox and its filter are on: it sees nothing of the host's files, may call little, and holds one capability."""
    needs.need("tun")
    from harness import processes
    kelp("run", "-d", "--name", "c", "busybox", "sleep", "100")
    (pid,) = [pid for pid, state, name in processes.descendants() if name.startswith("slirp4netns") and state != "Z"]
    status = dict(line.split(":\t", 1) for line in open(f"/proc/{pid}/status").read().splitlines() if ":\t" in line)
    assert status["Seccomp"] == "2" and status["NoNewPrivs"] == "1", status
    assert int(status["CapEff"], 16) in (0, 1 << 10), "at most CAP_NET_BIND_SERVICE"
    mounts = open(f"/proc/{pid}/mountinfo").read()
    assert len(mounts.splitlines()) < len(open("/proc/self/mountinfo").read().splitlines()) and " /home" not in mounts
    assert os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt")


def test_death_of_slirp_is_noticed(kelp):
    needs.need("tun")
    from harness import processes
    kelp("run", "-d", "--name", "c", "busybox", "sleep", "100")
    slirp = [pid for pid, state, name in processes.descendants() if name.startswith("slirp4netns")]
    assert slirp
    for pid in slirp:
        os.kill(pid, 9)
    assert kelp("exec", "c", "echo", "on").text == "on"
