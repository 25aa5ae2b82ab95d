#include "cli/option_set.h"

#include <doctest/doctest.h>

#include "base/csv.h"
#include "base/error.h"

using kelp::split_csv;
using kelp::cli::Kind;
using kelp::cli::OptionSet;
using kelp::cli::Strings;

namespace {

struct Values {
  bool remove = false, tty = false, interactive = false;
  std::optional<bool> verify;
  std::string name = "none";
  std::optional<std::string> entrypoint;
  Strings publish, caps;
  std::optional<std::int64_t> memory;
  unsigned time = 10;
  kelp::cli::StringMap labels;
};

void declare(OptionSet& options, Values& values) {
  options.flag("rm", values.remove, "");
  options.flag("tty,t", values.tty, "");
  options.flag("interactive,i", values.interactive, "");
  options.flag("tls-verify", values.verify, "");
  options.text("name", values.name, "NAME", "");
  options.text("entrypoint", values.entrypoint, "COMMAND", "");
  options.list("publish,p", values.publish, "PORT", "");
  options.csv("cap-add", values.caps, "CAP", "");
  options.size("memory,m", values.memory, "");
  options.number("time", values.time, "SECONDS", "");
  options.map("label,l", values.labels, "KEY=VALUE", "");
  options.arguments("IMAGE [COMMAND...]", 1, -1);
}

Values parse(const Strings& words, Strings* rest = nullptr, bool stop = true) {
  Values values;
  OptionSet options;
  declare(options, values);
  if (stop) options.stop_at_first_word();
  Strings found = options.parse(words, "kelp test");
  if (rest != nullptr) *rest = std::move(found);
  return values;
}

std::string failure(const Strings& words) {
  try {
    parse(words);
  } catch (const kelp::UsageError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("spellings of pflag") {
  CHECK(parse({"--rm", "x"}).remove);
  CHECK_FALSE(parse({"--rm", "--rm=false", "x"}).remove);
  CHECK(parse({"-it", "x"}).tty);
  CHECK(parse({"-it", "x"}).interactive);
  CHECK_FALSE(parse({"-t=false", "x"}).tty);
  CHECK(parse({"--name", "a", "x"}).name == "a");
  CHECK(parse({"--name=a=b", "x"}).name == "a=b");
  CHECK(parse({"--name=", "x"}).name.empty());
  CHECK(parse({"--entrypoint=", "x"}).entrypoint == "");
  CHECK(parse({"--entrypoint", "[\"a\"]", "x"}).entrypoint == "[\"a\"]");
  CHECK(parse({"-p8080:80", "-p", "1:2", "-p=3:4", "--publish=5:6", "x"}).publish ==
        Strings{"8080:80", "1:2", "3:4", "5:6"});
  CHECK(parse({"-itp80:80", "x"}).publish == Strings{"80:80"});
  CHECK(parse({"--cap-add", "a,b", "--cap-add=c", "x"}).caps == Strings{"a", "b", "c"});
  CHECK(parse({"-m", "512m", "x"}).memory == 512 * 1024 * 1024);
  CHECK(parse({"-m=-1", "x"}).memory == -1);
  CHECK(parse({"--tls-verify=0", "x"}).verify == false);
  CHECK_FALSE(parse({"x"}).verify.has_value());
  CHECK(parse({"-l", "a=b=c", "--label", "d", "x"}).labels == kelp::cli::StringMap{{"a", "b=c"}, {"d", ""}});
}

TEST_CASE("where options end") {
  Strings rest;
  CHECK_FALSE(parse({"image", "--rm", "-t"}, &rest).tty);
  CHECK(rest == Strings{"image", "--rm", "-t"});
  CHECK(parse({"image", "--rm"}, &rest, false).remove);
  CHECK(rest == Strings{"image"});
  parse({"--", "--rm"}, &rest, false);
  CHECK(rest == Strings{"--rm"});
  parse({"-", "x"}, &rest, false);
  CHECK(rest == Strings{"-", "x"});
}

TEST_CASE("mistakes are named") {
  CHECK(failure({"--nam", "a", "x"}) == "unknown option --nam; did you mean --name?");
  CHECK(failure({"-z", "x"}) == "unknown option \"-z\" in \"-z\"");
  CHECK(failure({"--name"}) == "--name needs a value");
  CHECK(failure({"--rm=maybe", "x"}) == "invalid value \"maybe\" for --rm: must be true or false");
  CHECK(failure({"--time", "-1", "x"}) == "invalid value \"-1\" for --time: must be a whole number, zero or more");
  CHECK(failure({"--label", "=x", "x"}) == "invalid value \"=x\" for -l, --label: must be key=value");
  CHECK(failure({}) == "kelp test needs IMAGE [COMMAND...]");
}

TEST_CASE("help wins over everything that follows") {
  Values values;
  OptionSet options;
  declare(options, values);
  options.parse({"--help", "--nonsense"}, "kelp test");
  CHECK(options.help_asked());
}

TEST_CASE("choices and given()") {
  std::string pull = "missing";
  OptionSet options;
  options.text("pull", pull, "POLICY", "").one_of({"missing", "always"});
  options.arguments("", 0, 0);
  options.parse({"--pull", "always"}, "kelp test");
  CHECK(options.given("pull"));
  CHECK_FALSE(options.given("push"));
  CHECK_THROWS_AS(options.parse({"--pull", "often"}, "kelp test"), kelp::UsageError);
  CHECK_THROWS_AS(options.parse({"word"}, "kelp test"), kelp::UsageError);
}

TEST_CASE("comma-separated values") {
  CHECK(split_csv("a,b", "x") == Strings{"a", "b"});
  CHECK(split_csv("a,\"b,c\",\"d\"\"e\"", "x") == Strings{"a", "b,c", "d\"e"});
  CHECK(split_csv("", "x").empty());
  CHECK(split_csv("a,", "x") == Strings{"a", ""});
  CHECK_THROWS_AS(split_csv("\"a", "x"), kelp::UsageError);
}
