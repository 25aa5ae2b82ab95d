"""Secrets: kept for the owner alone, given as files or variables, never shown."""

import json
import os

NONE = ("--network", "none")
WORD = "hush-4711-kelp"


def make(kelp, name="pw", value=WORD, *options):
    return kelp("secret", "create", *options, name, "-", stdin=value).text


def test_create_list_inspect_remove(kelp, place):
    first = make(kelp, "pw", WORD, "--label", "tier=db")
    (place / "file").write_bytes(b"\0binary\xff")
    kelp("secret", "create", "bin", place / "file")
    kelp("secret", "create", "--env", "env", "TOKEN", env={"TOKEN": "abc"})
    assert len(first) == 25
    assert kelp("secret", "ls", "--noheading", "--format", "{{.Name}}").lines == ["bin", "env", "pw"]
    assert kelp("secret", "ls").lines[0].split() == ["ID", "NAME", "DRIVER", "CREATED", "UPDATED"]
    assert kelp("secret", "ls", "-q", "--filter", "name=pw").text == first
    seen = json.loads(kelp("secret", "inspect", "pw").out)[0]
    assert seen["ID"] == first and seen["Spec"] == {
        "Name": "pw", "Driver": {"Name": "file", "Options": {}}, "Labels": {"tier": "db"}}
    assert WORD not in json.dumps(seen)
    assert kelp("secret", "inspect", "--showsecret", "--format", "{{.SecretData}}", first[:9]).text == WORD
    assert "Name:            pw" in kelp("secret", "inspect", "--pretty", "pw").out
    kelp("secret", "exists", "pw")
    kelp("secret", "exists", "nothing", code=1)
    assert kelp("secret", "rm", "pw").text == first
    kelp("secret", "exists", "pw", code=1)
    kelp("secret", "rm", "--all")
    assert kelp("secret", "ls", "-q").text == ""
    kelp("secret", "rm", "--ignore", "pw")
    kelp.fails("secret", "rm", "pw", says="no such secret")


def test_at_rest(kelp):
    make(kelp)
    kelp("create", "--name", "c", *NONE, "--secret", "pw", "busybox", "true")
    holders = []
    for directory, _, files in os.walk(kelp.data):
        for name in files:
            path = os.path.join(directory, name)
            if os.access(path, os.R_OK) and WORD.encode() in open(path, "rb").read():
                holders.append(path)
                assert os.stat(path).st_mode & 0o777 == 0o600
    assert len(holders) == 2
    kelp("rm", "c")
    kelp("secret", "rm", "pw")
    assert all(not os.path.exists(path) for path in holders)


def test_refusals(kelp):
    make(kelp)
    kelp.fails("secret", "create", "pw", "-", stdin="x", says="in use", hint="--replace")
    kelp.fails("secret", "create", "big", "-", stdin="x" * 512001, says="512000")
    kelp.fails("secret", "create", "empty", "-", stdin="", says="bytes")
    kelp.fails("secret", "create", "a,b", "-", stdin="x", says="invalid")
    kelp.fails("secret", "create", "../b", "-", stdin="x", says="invalid")
    kelp.fails("secret", "create", "f", "/nothing/here", says="no file")
    kelp.fails("run", *NONE, "--secret", "pv", "busybox", "true", says="no such secret", hint='"pw"')
    kelp.fails("run", *NONE, "--secret", "pw,colour=red", "busybox", "true", says="unknown option")
    kelp.fails("run", *NONE, "--secret", "pw,type=env,mode=0400", "busybox", "true", says="type=mount")
    old = make(kelp, "pw", "new", "--replace")
    assert kelp("secret", "inspect", "--showsecret", "--format", "{{.SecretData}}", "pw").text == "new"
    assert make(kelp, "pw", "other", "--ignore") == old


def test_as_a_file(kelp):
    make(kelp)
    run = lambda option, command: kelp("run", "--rm", *NONE, "--secret", option, "busybox", "sh", "-c", command).text
    assert run("pw", "cat /run/secrets/pw; stat -c ' %a %u:%g' /run/secrets/pw") == f"{WORD} 444 0:0"
    assert run("pw,target=other", "cat /run/secrets/other") == WORD
    assert run("pw,target=/etc/pw,uid=5,gid=6,mode=0400", "cat /etc/pw; stat -c ' %a %u:%g' /etc/pw") == f"{WORD} 400 5:6"
    assert run("pw", "echo x > /run/secrets/pw || echo refused") == "refused"


def test_as_a_variable_that_nobody_shows(kelp):
    make(kelp)
    kelp("run", "--name", "c", *NONE, "--secret", "pw,type=env,target=WORD", "busybox", "sh", "-c", 'test ${#WORD} = 14')
    shown = kelp("inspect", "c").out
    assert WORD not in shown and '"Name": "pw"' in shown
    assert kelp("run", "--rm", *NONE, "--secret", "pw,type=env", "busybox", "sh", "-c", 'echo "$pw"').text == WORD


def test_a_container_keeps_what_it_was_given(kelp):
    make(kelp)
    kelp("create", "--name", "c", *NONE, "--secret", "pw", "busybox", "cat", "/run/secrets/pw")
    make(kelp, "pw", "other", "--replace")
    assert kelp("start", "-a", "c").text == WORD
    kelp("secret", "rm", "pw")
    assert kelp("start", "-a", "c").text == WORD


def test_export_and_other_ids(kelp):
    make(kelp)
    kelp("run", "--name", "c", *NONE, "--secret", "pw", "--userns", "keep-id", "busybox", "cat", "/run/secrets/pw")
    assert WORD not in kelp("export", "c", code=0, timeout=60).out
