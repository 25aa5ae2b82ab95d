#include "cli/template.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"

using kelp::cli::Json;
using kelp::cli::Template;

namespace {

Json sample() {
  return Json::parse(R"({"Name": "web", "Pid": 42, "Running": true, "Empty": [], "Nothing": null,
    "Names": ["a", "b"], "State": {"Status": "running", "ExitCode": 0},
    "Config": {"Labels": {"app": "shop", "tier": "front"}},
    "NetworkSettings": {"Ports": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}}, "Rate": 1.5})");
}

std::string render(const char* text) { return Template(text).render(sample()); }

std::string failure(const char* text) {
  try {
    render(text);
  } catch (const kelp::UsageError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("fields, variables and text") {
  CHECK(render("{{.Name}}") == "web");
  CHECK(render("[{{ .State.Status }}]") == "[running]");
  CHECK(render("{{$.Name}}{{with .State}}{{.Status}}{{$.Pid}}{{end}}") == "webrunning42");
  CHECK(render("{{$x := .Pid}}{{$x}}{{$x = 7}}{{$x}}") == "427");
  CHECK(render("{{.Pid}}\\t{{.Running}}\\n") == "42\ttrue\n");
  CHECK(render("{{/* nothing */}}x") == "x");
  CHECK(render("{{.Names}} {{.Config.Labels}} {{.Nothing}}") == "[a b] map[app:shop tier:front] <nil>");
  CHECK(render("{{\"a\\tb\\u00e9\"}}{{`r\\t`}}") == "a\tb\xc3\xa9r\\t");
}

TEST_CASE("the times of a health check are durations") {
  const auto shown = [](const char* text) {
    return Template(text).render(
        {{"Healthcheck", {{"Test", {"CMD", "x"}}, {"Interval", 65000000000}, {"Retries", 3}}}});
  };
  CHECK(shown("{{.Healthcheck.Interval}} {{.Healthcheck.Retries}}") == "1m5s 3");
  CHECK(shown("{{with .Healthcheck}}{{.Interval}}{{println .Interval}}{{end}}") == "1m5s1m5s\n");
  CHECK(shown("{{.Healthcheck}}") == "{[CMD x] 1m5s 3}");
  CHECK(shown("{{json .Healthcheck.Interval}}") == "65000000000");
  const std::pair<std::int64_t, const char*> kTimes[] = {{0, "0s"},
                                                         {30'000'000'000, "30s"},
                                                         {3'600'000'000'000, "1h0m0s"},
                                                         {3'601'050'000'000, "1h0m1.05s"},
                                                         {1'500'000'000, "1.5s"},
                                                         {300'000'000, "300ms"},
                                                         {1'010'000, "1.01ms"},
                                                         {1000, "1µs"},
                                                         {7, "7ns"},
                                                         {-90'000'000'000, "-1m30s"}};
  for (const auto& [time, text] : kTimes)
    CHECK(Template("{{.Healthcheck.Timeout}}").render({{"Healthcheck", {{"Timeout", time}}}}) == text);
}

TEST_CASE("trim marks") {
  CHECK(render("a {{- .Name -}} b") == "awebb");
  CHECK(render("a\n{{- /* x */ -}}\nb") == "ab");
  CHECK(render("{{-3}}") == "-3");
}

TEST_CASE("conditions and loops") {
  CHECK(render("{{if .Running}}yes{{else}}no{{end}}") == "yes");
  CHECK(render("{{if .Empty}}a{{else if eq .Pid 42}}b{{else}}c{{end}}") == "b");
  CHECK(render("{{range .Names}}<{{.}}>{{end}}") == "<a><b>");
  CHECK(render("{{range $i, $n := .Names}}{{$i}}={{$n}} {{end}}") == "0=a 1=b ");
  CHECK(render("{{range .Empty}}x{{else}}none{{end}}") == "none");
  CHECK(render("{{range $k, $v := .Config.Labels}}{{$k}}:{{$v}};{{end}}") == "app:shop;tier:front;");
  CHECK(render("{{range .Names}}{{if eq . \"b\"}}{{break}}{{end}}{{.}}{{end}}") == "a");
  CHECK(render("{{range .Names}}{{if eq . \"a\"}}{{continue}}{{end}}{{.}}{{end}}") == "b");
  CHECK(render("{{range $p, $c := .NetworkSettings.Ports}}{{$p}} {{(index $c 0).HostPort}}{{end}}") == "80/tcp 8080");
}

TEST_CASE("functions") {
  CHECK(render("{{index .Config.Labels \"app\"}}{{index .Names 1}}") == "shopb");
  CHECK(render("{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}") == "8080");
  CHECK(render("{{len .Names}}{{len .Name}}") == "23");
  CHECK(render("{{and 1 0}}{{or 0 \"x\"}}{{not true}}") == "0xfalse");
  CHECK(render("{{eq .Pid 1 42}}{{ne .Name \"x\"}}{{lt 1 2}}{{ge 2 2}}{{gt .Rate 1}}") == "truetruetruetruetrue");
  CHECK(render("{{printf \"%s-%05d|%-5s|%q\" .Name .Pid \"ab\" \"x\"}}") == "web-00042|ab   |\"x\"");
  CHECK(render("{{json .State}}") == R"({"Status":"running","ExitCode":0})");
  CHECK(render("{{.Names | join \",\"}} {{join .Names \"+\"}}") == "a,b a+b");
  CHECK(render("{{upper .Name}}{{lower \"AB\"}}{{title \"ab cd\"}}{{truncate .Name 2}}{{slice .Name 1 3}}") ==
        "WEBabAb Cdweeb");
  CHECK(render("{{range split \"a:b\" \":\"}}{{.}}.{{end}}") == "a.b.");
  CHECK(render("{{println .Name}}") == "web\n");
}

TEST_CASE("unknown keys of maps are no mistake, unknown fields are") {
  CHECK(render("{{.Config.Labels.absent}}") == "<no value>");
  CHECK(failure("{{.Nme}}") == "template, character 3: there is no field \"Nme\" here; did you mean .Name?");
  CHECK(failure("{{.State.Pid}}") ==
        "template, character 3: there is no field \"Pid\" here; there are: Status, ExitCode");
  CHECK(failure("{{.Name.X}}").find("no fields") != std::string::npos);
}

TEST_CASE("broken templates name the place") {
  CHECK(failure("abc {{.Name") == "template, character 5: this action has no }}");
  CHECK(failure("{{if .Name}}x") == "template, character 3: this block has no {{end}}");
  CHECK(failure("{{end}}") == "template, character 3: {{end}} without a block that it ends");
  CHECK(failure("{{jsn .}}") == "template, character 3: there is no function \"jsn\"; did you mean json?");
  CHECK(failure("{{}}") == "template, character 1: this action is empty");
  CHECK(failure("{{\"abc}}") == "template, character 3: this string is not closed");
  CHECK(failure("{{index .Names 5}}") == "template, character 3: index: index 5 out of range, there are 2");
  CHECK(failure("{{$x}}") == "template, character 3: the variable $x is not declared");
}

TEST_CASE("header rows take what they have") {
  const Json header = {{"ID", "CONTAINER ID"}, {"Names", "NAMES"}};
  CHECK(Template("{{.ID}}\\t{{.Names}}\\t{{.Config.Image}}").render_header(header) == "CONTAINER ID\tNAMES\t");
}
