"""--format: Go's templates as podman's users write them."""

import pytest

NONE = ("--network", "none")


@pytest.fixture(scope="module")
def expected():
    """Template → what Go prints for the container below."""
    return {
        "{{.Name}}": "c",
        "{{.State.Running}} {{.State.ExitCode}} {{.RestartCount}}": "false 0 0",
        "{{.Config.Cmd}}": "[echo one two]",
        "{{json .Config.Cmd}}": '["echo","one","two"]',
        "{{json .State.Running}}": "false",
        "{{len .Config.Cmd}} {{len .Name}}": "3 1",
        "{{index .Config.Cmd 1}}": "one",
        '{{index .Config.Labels "a"}}': "b",
        "{{.Config.Labels.a}}": "b",
        "{{range .Config.Cmd}}<{{.}}>{{end}}": "<echo><one><two>",
        "{{range $i, $word := .Config.Cmd}}{{if $i}}, {{end}}{{$i}}:{{$word}}{{end}}": "0:echo, 1:one, 2:two",
        "{{range .Mounts}}x{{else}}none{{end}}": "none",
        "{{range .Config.Cmd}}{{if eq . \"one\"}}{{continue}}{{end}}{{.}} {{end}}": "echo two ",
        "{{range .Config.Cmd}}{{if eq . \"one\"}}{{break}}{{end}}{{.}} {{end}}": "echo ",
        "{{if .State.Running}}up{{else if eq .State.ExitCode 0}}good{{else}}bad{{end}}": "good",
        "{{with .Config}}{{.StopTimeout}}{{end}}": "10",
        "{{with .HostConfig.CapAdd}}x{{else}}nothing{{end}}": "nothing",
        "{{$x := .Name}}{{$x}}{{$x = \"d\"}}{{$x}}": "cd",
        "{{/* a comment */}}{{.Name}}": "c",
        "a  {{- .Name -}}  b": "acb",
        "{{.Name | printf \"%s-%s\" \"x\"}}": "x-c",
        '{{printf "%5d|%-4s|%04x|%v|%t|%q|%%" 42 "ab" 255 .Name true "q"}}': '   42|ab  |00ff|c|true|"q"|%',
        '{{printf "%.2f %5.1f %e" 3.14159 2.5 1500.0}}': "3.14   2.5 1.500000e+03",
        '{{printf "%v %v" .Config.Cmd nil}}': "[echo one two] <nil>",
        "{{print 1 2 \"a\" \"b\" 3}}": "1 2ab3",
        "{{println .Name}}": "c\n",
        '{{join .Config.Cmd ","}}': "echo,one,two",
        "{{.Name | upper}} {{lower \"ABC\"}} {{title \"two words\"}}": "C abc Two Words",
        '{{range split "a:b" ":"}}[{{.}}]{{end}}': "[a][b]",
        "{{slice .Config.Cmd 1 2}} {{slice \"abcdef\" 1 3}}": "[one] bc",
        '{{truncate "abcdef" 3}}': "abc",
        '{{pad "x" 1 2}}|': " x  |",
        "{{and true .Name}} {{or false \"\" \"z\"}} {{not true}}": "c z false",
        "{{eq 1 1}} {{eq .Name \"a\" \"c\"}} {{ne 1 2}} {{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge 1 2}}":
            "true true true true true false false",
        "{{eq (len .Config.Cmd) 3}}": "true",
        "{{html \"<a>\"}} {{js \"it's\"}} {{urlquery \"a b&c\"}}": "&lt;a&gt; it\\'s a+b%26c",
        "{{`raw \\n`}}{{\"tab\\tx\"}}{{'a'}}": "raw \\ntab\tx97",
        "{{true}} {{0x10}} {{1_000}} {{1.5}}": "true 16 1000 1.5",
        "{{if and .State.Running (gt .State.Pid 0)}}x{{end}}ok": "ok",
    }


def test_what_templates_print(kelp, expected):
    kelp("create", "--name", "c", "--label", "a=b", *NONE, "busybox", "echo", "one", "two")
    wrong = []
    for template, output in expected.items():
        result = kelp("inspect", "--format", template, "c", code=None)
        if result.out != output + "\n" or result.code != 0:
            wrong.append(f"{template}\n  expected {output!r}\n  printed  {result.out!r} {result.err!r}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("template, says", [
    ("{{.Nothing}}", "Nothing"), ("{{.State.Nothing}}", "Nothing"), ("a{{.Name", "(?i)unclosed|closed|character"),
    ("{{if .Name}}", "(?i)end"), ("{{nothing .Name}}", "nothing"), ("{{.Name | nothing}}", "nothing"),
    ("{{end}}", "end"), ("{{index .Config.Cmd 9}}", "(?i)range|index"), ("{{printf}}", "printf"), ("{{$x}}", r"\$x"),
    ("{{\"abc}}", "(?i)quote|string|character"), ("{{lt 1 \"a\"}}", "(?i)lt|compar|type"), ("{{len 3}}", "len"),
])
def test_errors_name_the_place(kelp, template, says):
    kelp("create", "--name", "c", *NONE, "busybox", "echo")
    result = kelp.fails("inspect", "--format", template, "c", says=says)
    assert "character" in result.err


def test_tables(kelp):
    kelp("create", "--name", "c", *NONE, "busybox", "echo")
    assert kelp("ps", "-a", "--format", "table {{.Names}} {{.State}}").out.split() == ["NAMES", "STATE", "c", "created"]
    assert kelp("ps", "-a", "--format", "table {{.Names}}\\t{{.Image}}").lines[0].split() == ["NAMES", "IMAGE"]
    assert kelp("ps", "-a", "--noheading", "--format", "table {{.Names}}").text == "c"
    assert kelp("ps", "-a", "--format", "{{.ID}}\t{{.Names}}").lines[0].count("\t") == 1
    assert kelp("ps", "-aq", "--no-trunc").text == kelp("inspect", "--format", "{{.Id}}", "c").text


# --- filters ---------------------------------------------------------------------------------------------------------
# What the podman beside which lives/filters.txt is played does not know yet.

def test_filters_of_the_newer_podman(kelp):
    kelp("create", "--name", "one", "--label", "k=1", "-v", "v:/data", "--network", "none", "busybox", "sleep", "5")
    kelp("create", "--name", "two", "--label", "k=2", "--network", "slirp4netns", "--entrypoint", "/bin/cat", "busybox", "sleep")

    def found(*conditions):
        return kelp("ps", "-a", "--sort", "names", "--format", "{{.Names}}", *(w for c in conditions for w in ("--filter", c))).lines

    assert found("command=sleep") == ["one"] and found("command=cat$") == ["two"] and found("command=nothing") == []
    assert found("volume=/data") == found("volume=v") == ["one"]
    assert found("label!=k=1") == ["two"] and found("label!=k") == [] and found("label!=k=1", "label!=k=2") == []
    assert found("network=none") == ["one"] and found("network=slirp4netns") == ["two"]
    assert found("restart-policy=no") == found("restart-policy=none") == ["one", "two"]
    assert found("ancestor=busybox") == found("ancestor=busy") == found("ancestor=^localhost/busybox:latest$") == ["one", "two"]
    assert found("ancestor=^busybox$x") == []
    first = kelp("inspect", "--format", "{{.Id}}", "one").text
    assert found(f"id={first[10:20]}") == []  # of hex digits alone: the beginning
    assert found(f"id=.{first[10:20]}") == ["one"]
    assert found("name=^/one$") == found("name=/one") == ["one"]  # as docker's users write it
    for key in ("name", "id", "ancestor", "command"):
        kelp.fails("ps", "--filter", f"{key}=x(", says=f"--filter {key}: .*x\\(.* no regular expression")


def test_filters_of_images_and_volumes_of_the_newer_podman(kelp):
    digest = kelp("image", "inspect", "--format", "{{.Digest}}", "busybox").text
    names = ("images", "--format", "{{.Repository}}", "--filter")
    assert kelp(*names, f"digest={digest}").lines == kelp(*names, f"digest={digest[:20]}").lines == ["localhost/busybox"]
    assert kelp(*names, "digest=sha256:0000").lines == []
    assert kelp(*names, "containers=external").lines == []
    kelp("volume", "create", "first")
    kelp("volume", "create", "--label", "k=v", "second")
    volumes = ("volume", "ls", "-q", "--filter")
    assert kelp(*volumes, "since=first").lines == kelp(*volumes, "after=first").lines == ["second"]
    assert kelp(*volumes, "label!=k").lines == ["first"] and kelp(*volumes, "label=k", "--filter", "name=first").lines == []
    kelp.fails(*volumes, "since=nobody", says="no volume .*nobody")
    kelp.fails(*volumes, "name=x(", says="no regular expression")


def test_an_intermediate_image_is_one_without_a_name_that_others_stand_on(kelp):
    kelp("run", "--name", "a", "--network", "none", "busybox", "touch", "/a")
    below = kelp("commit", "-q", "a").text
    kelp("run", "--name", "b", "--network", "none", below, "touch", "/b")
    kelp("commit", "-q", "b", "above")
    lone = kelp("commit", "-q", "--author", "me", "b").text
    assert below != lone
    assert kelp("images", "-q", "--no-trunc", "--filter", "intermediate=true").lines == [f"sha256:{below}"]
    assert f"sha256:{lone}" in kelp("images", "-aq", "--no-trunc", "--filter", "intermediate=false").lines
