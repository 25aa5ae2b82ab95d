#include "cli/run_values.h"

#include <doctest/doctest.h>

#include "base/error.h"
#include "cli/options_run.h"

using namespace kelp::cli;
using kelp::UsageError;

TEST_CASE("environment variables") {
  const StringMap host = {{"HOME", "/h/me"}, {"LC_ALL", "C"}, {"LC_TIME", "de"}};
  StringMap env;
  apply_env(env, "A=1=2", host);
  apply_env(env, "HOME", host);
  apply_env(env, "UNKNOWN", host);
  apply_env(env, "EMPTY=", host);
  apply_env(env, "LC_*", host);
  CHECK(env == StringMap{{"A", "1=2"}, {"EMPTY", ""}, {"HOME", "/h/me"}, {"LC_ALL", "C"}, {"LC_TIME", "de"}});
  CHECK_THROWS_AS(apply_env(env, "=x", host), UsageError);
  CHECK(env_list({{"a", "1"}, {"b", ""}}) == Strings{"a=1", "b="});
}

TEST_CASE("environment files") {
  StringMap env;
  apply_env_file(env, "# comment\n\nA=1\r\n  B=two words\nHOME\n", "f", {{"HOME", "/h"}});
  CHECK(env == StringMap{{"A", "1"}, {"B", "two words"}, {"HOME", "/h"}});
  env.clear();
  apply_env_file(env, "B = 2\nexport C=3\n", "f", {});  // as podman takes them
  CHECK(env == StringMap{{"B ", " 2"}, {"export C", "3"}});
  CHECK_THROWS_WITH_AS(apply_env_file(env, "A=1\n=x\n", "f", {}), "--env-file f:2: \"=x\" is not NAME=value",
                       UsageError);
}

TEST_CASE("entrypoint and health command") {
  CHECK(parse_entrypoint("").empty());
  CHECK(parse_entrypoint("/bin/sh -c") == Strings{"/bin/sh -c"});
  CHECK(parse_entrypoint("[\"a\", \"b c\"]") == Strings{"a", "b c"});
  CHECK(parse_entrypoint("[") == Strings{"["});
  CHECK(parse_entrypoint("[\"\"]").empty());
  CHECK(parse_health_command("none") == Strings{"NONE"});
  CHECK(parse_health_command("NONE") == Strings{"NONE"});
  CHECK(parse_health_command("curl -f x") == Strings{"CMD-SHELL", "curl -f x"});
  CHECK(parse_health_command("CMD-SHELL curl -f x || exit 1") == Strings{"CMD-SHELL", "curl -f x || exit 1"});
  CHECK(parse_health_command("CMD curl  -f x") == Strings{"CMD", "curl", "-f", "x"});
  CHECK(parse_health_command("CMD-SHELL") == Strings{"CMD-SHELL", "CMD-SHELL"});
  CHECK(parse_health_command("[\"curl\", \"x\"]") == Strings{"CMD", "curl", "x"});
  CHECK(parse_health_command("[\"CMD\", \"curl\"]") == Strings{"CMD", "curl"});
  CHECK(parse_health_duration("disable", "--health-interval").count() == 0);
  CHECK(parse_health_duration("5s", "--health-timeout") == std::chrono::seconds(5));
  CHECK_THROWS_AS(parse_health_duration("x", "--health-timeout"), UsageError);
  CHECK_THROWS_AS(parse_health_duration("0s", "--health-timeout"), UsageError);
  CHECK_THROWS_AS(parse_health_duration("0s", "--health-startup-timeout"), UsageError);
}

TEST_CASE("restart policy") {
  std::string policy;
  unsigned max = 9;
  parse_restart("always", policy, max);
  CHECK(policy == "always");
  CHECK(max == 0);
  parse_restart("on-failure:3", policy, max);
  CHECK(policy == "on-failure");
  CHECK(max == 3);
  CHECK_THROWS_AS(parse_restart("sometimes", policy, max), UsageError);
  CHECK_THROWS_AS(parse_restart("always:3", policy, max), UsageError);
  CHECK_THROWS_AS(parse_restart("on-failure:x", policy, max), UsageError);
}

TEST_CASE("resource limits") {
  auto limit = parse_ulimit("nofile=1024:2048");
  CHECK(limit.name == "nofile");
  CHECK(limit.soft == 1024);
  CHECK(limit.hard == 2048);
  limit = parse_ulimit("RLIMIT_CORE=-1");
  CHECK(limit.name == "core");
  CHECK(limit.hard == -1);
  std::vector<kelp::store::Ulimit> limits{{"nofile", 1, 2}, {"core", 0, 0}};
  add_ulimit(limits, {"nofile", 3, 4});
  REQUIRE(limits.size() == 2);
  CHECK(limits[1].soft == 3);
  CHECK_THROWS_AS(parse_ulimit("nofile"), UsageError);
  CHECK_THROWS_AS(parse_ulimit("files=1"), UsageError);
  CHECK_THROWS_AS(parse_ulimit("nofile=2:1"), UsageError);
  const auto host = parse_limits_file(
      "Limit                     Soft Limit           Hard Limit           Units     \n"
      "Max open files            1024                 1048576              files     \n"
      "Max processes             unlimited            unlimited            processes \n");
  REQUIRE(host.size() == 2);
  CHECK(host[0].name == "nofile");
  CHECK(host[0].hard == 1048576);
  CHECK(host[1].soft == -1);
}

TEST_CASE("small forms") {
  CHECK(parse_expose("80") == Strings{"80/tcp"});
  CHECK(parse_expose("80-81/UDP") == Strings{"80/udp", "81/udp"});
  CHECK_THROWS_AS(parse_expose("0"), UsageError);
  CHECK_THROWS_AS(parse_expose("80/x"), UsageError);
  CHECK(check_detach_keys("ctrl-p,ctrl-q") == "ctrl-p,ctrl-q");
  CHECK(check_detach_keys("a,ctrl-[") == "a,ctrl-[");
  CHECK(check_detach_keys("").empty());
  CHECK_THROWS_AS(check_detach_keys("ctrl-1x"), UsageError);
  CHECK(parse_attach("STDIN") == "stdin");
  CHECK_THROWS_AS(parse_attach("tty"), UsageError);
  check_add_host("a;b:10.0.0.1");
  CHECK_THROWS_AS(check_add_host("host"), UsageError);
  CHECK(join_platform("linux/arm64", "", "", "") == "linux/arm64");
  CHECK(join_platform("", "linux", "arm", "v7") == "linux/arm/v7");
  CHECK_THROWS_AS(join_platform("linux/arm64", "linux", "", ""), UsageError);
  StringMap labels;
  apply_label_file(labels, "# x\na=b\nc\n", "f");
  CHECK(labels == StringMap{{"a", "b"}, {"c", ""}});
  StringMap sysctl;
  apply_key_value(sysctl, "net.core.somaxconn=5", "--sysctl");
  CHECK(sysctl.at("net.core.somaxconn") == "5");
  CHECK_THROWS_AS(apply_key_value(sysctl, "novalue", "--sysctl"), UsageError);
  StringMap pairs;
  apply_key_values(pairs, "a=1,b=2", "--annotation");
  apply_key_values(pairs, "ports=80,81", "--annotation");
  apply_key_values(pairs, "\"c=x,y=z\",d=", "--annotation");
  apply_key_values(pairs, "q={\"k\": 1}", "--annotation");
  apply_key_values(pairs, "", "--annotation");
  CHECK(pairs == StringMap{{"a", "1"}, {"b", "2"}, {"ports", "80,81"}, {"c", "x,y=z"}, {"d", ""}, {"q", "{\"k\": 1}"}});
  CHECK_THROWS_AS(apply_key_values(pairs, "novalue", "--sysctl"), UsageError);
  CHECK_THROWS_AS(apply_key_values(pairs, "=x", "--sysctl"), UsageError);
}

TEST_CASE("spellings of a pull policy") {
  for (const char* text : {"always", "Always"}) CHECK(pull_policy(text) == "always");
  for (const char* text : {"missing", "Missing", "ifnotpresent", "IfNotPresent"}) CHECK(pull_policy(text) == "missing");
  for (const char* text : {"newer", "ifnewer", "IfNewer"}) CHECK(pull_policy(text) == "newer");
  for (const char* text : {"NEVER", "1", "True"}) CHECK(pull_policy(text) != "never");
}

TEST_CASE("the last words of a program name the part of --hardened that it cannot live with") {
  kelp::store::ContainerConfig config;
  config.read_only = true;
  config.user = "1000:1000";
  config.cap_drop = {"ALL"};
  config.networks = {"none"};
  const auto names = [&](const char* words, const char* option) {
    return hardened_part(config, words).find(option) != std::string::npos;
  };
  CHECK(names("mkdir: can't create directory '/x': Read-only file system", "--read-only=false"));
  CHECK(names("sh: can't create /etc/x: Permission denied", "--user 0"));
  CHECK(names("chown: /x: Operation not permitted", "--cap-add"));
  CHECK(names("wget: bad address 'example.org'", "--network"));
  CHECK(names("Permission denied\nconnect: Network is unreachable\n", "--network"));
  CHECK(hardened_part(config, "syntax error").empty());
  config.read_only = false;
  CHECK(hardened_part(config, "Read-only file system").empty());
}
