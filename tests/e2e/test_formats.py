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
