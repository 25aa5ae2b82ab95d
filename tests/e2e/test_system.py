"""`system prune|check|migrate|reset`."""

import json
import os
import subprocess

NONE = ("--network", "none")


def test_prune(kelp):
    kelp("run", "--name", "old", *NONE, "busybox", "sh", "-c", "echo data > /file")
    kelp("run", "-d", "--name", "live", *NONE, "busybox", "sleep", "1000")
    kelp("tag", "busybox", "other:1")
    kelp("volume", "create", "v")
    out = kelp("system", "prune", stdin="n\n").out
    assert "all stopped containers" in out and kelp("ps", "-a", "--noheading", "--format", "{{.Names}}").lines == ["old", "live"]
    out = kelp("system", "prune", "--force").out
    assert out.startswith("Deleted Containers\n") and "Total reclaimed space: " in out
    assert kelp("ps", "-a", "--format", "{{.Names}}").lines == ["live"]
    kelp("volume", "exists", "v")
    assert "Deleted Volumes\nv\n" in kelp("system", "prune", "-f", "--volumes").out
    kelp("rm", "-f", "-t", "0", "live")
    assert "Deleted Images\n" in kelp("system", "prune", "-a", "-f").out
    assert kelp("images", "-q").text == ""


def test_prune_filters(kelp):
    for name in ("a", "b"):
        kelp("create", "--name", name, "--label", f"keep={name}", *NONE, "busybox", "true")
    kelp("system", "prune", "-f", "--filter", "label!=keep=b")
    assert kelp("ps", "-a", "--format", "{{.Names}}").lines == ["b"]
    kelp.fails("system", "prune", "-f", "--filter", "name=b", says="unknown key")
    kelp("system", "prune", "-f", "--filter", "until=1h")
    assert kelp("ps", "-a", "-q").text


def damage(kelp):
    image = json.loads(kelp("image", "inspect", "busybox").out)[0]
    manifest = json.loads((kelp.store / "blobs/sha256" / image["Digest"][7:]).read_text())
    blob = kelp.store / "blobs/sha256" / manifest["layers"][0]["digest"][7:]
    content = blob.read_bytes()
    os.chmod(blob, 0o600)
    return blob, content


def test_check_finds_a_changed_blob(kelp):
    assert kelp("system", "check").text == ""
    blob, content = damage(kelp)
    blob.write_bytes(content[:100] + b"X" + content[101:])
    assert kelp("system", "check", "--quick").text == ""
    result = kelp.fails("system", "check", says="1 damaged", hint="--repair")
    assert f"blob sha256:{blob.name}" in result.out
    assert "Removed: sha256:" in kelp("system", "check", "--repair").out
    assert kelp("images", "-q").text == "" and kelp("system", "check").text == ""


def test_check_finds_what_is_missing(kelp):
    blob, _ = damage(kelp)
    blob.unlink()
    assert "is missing or cut" in kelp.fails("system", "check", "--quick", says="1 damaged").out
    kelp("system", "check", "--repair", "--quick")
    assert kelp("system", "check").text == ""


def test_check_and_containers(kelp):
    container = kelp("create", *NONE, "busybox", "true").text
    (kelp.store / "containers" / container / "record.json").write_text("{")
    assert container[:12] in kelp.fails("system", "check", says="1 damaged").out
    kelp.fails("system", "check", "--repair", says="1 damaged containers are left", hint="--force")
    kelp("system", "check", "--repair", "--force")
    assert kelp("system", "check").text == "" and not list((kelp.store / "names").iterdir())
    kelp.fails("system", "check", "--force", says="--repair")


def test_what_lies_in_the_store_and_cannot_be_run(kelp):
    broken = kelp("create", "--name", "broken", *NONE, "busybox", "true").text
    kelp("create", "--name", "good", *NONE, "busybox", "true")
    for prune in (("system", "prune"), ("image", "prune")):
        (kelp.store / "containers" / broken / "record.json").write_text("{")
        assert kelp("ps", "-a", "--format", "{{.Names}}").lines == ["good"]
        rows = kelp("ps", "-a", "--external", "--no-trunc", "--format", "{{.ID}} {{.Status}}").lines
        assert f"{broken} Storage" in rows and len(rows) == 2
        assert [row["State"] for row in json.loads(kelp("ps", "-a", "--external", "--format", "json").out)
                if row["Id"] == broken] == ["storage"]
        kelp.fails("container", "exists", broken[:12], says="damaged")
        kelp("container", "exists", "--external", broken[:12])
        kelp("container", "exists", "--external", "0" * 12, code=1)
        out = kelp(*prune, "--force", "--external").out
        assert broken in out or prune[0] == "image"
        assert not (kelp.store / "containers" / broken).exists()
        assert kelp("ps", "-a", "--external", "--format", "{{.Names}}").lines == ["good"]
        broken = kelp("create", "--name", "broken", *NONE, "busybox", "true").text
    record = kelp.store / "containers" / broken / "record.json"
    ours = record.read_text()
    record.write_text(json.dumps({**json.loads(ours), "schema": 99}))
    kelp("system", "prune", "--force", "--external")
    assert record.exists()  # a newer kelp's
    record.write_text(ours)
    kelp.fails("system", "prune", "--external", "--all", says="--external")


def test_migrate(kelp):
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sleep", "1000")
    before = kelp("inspect", "--format", "{{.State.Pid}}", "c").text
    assert kelp("system", "migrate", timeout=60).lines == ["stopped c", "started c"]
    assert kelp("inspect", "--format", "{{.State.Status}}", "c").text == "running"
    assert kelp("inspect", "--format", "{{.State.Pid}}", "c").text != before


def test_reset(kelp):
    kelp("run", "-d", "--name", "c", *NONE, "-v", "v:/data", "busybox", "sh", "-c", "chown 7:7 /data; sleep 1000")
    kelp("secret", "create", "pw", "-", stdin="hush")
    assert "all secrets" in kelp("system", "reset", stdin="n\n").out
    kelp("secret", "exists", "pw")
    kelp("system", "reset", "--force", timeout=60)
    assert not kelp.store.exists() and not kelp.run_dir.exists()
    left = subprocess.run(["find", str(kelp.data), str(kelp.cache), "-type", "f"], capture_output=True, text=True).stdout
    assert left == ""
    assert kelp("ps", "-a", "-q").text == "" and kelp("images", "-q").text == ""
