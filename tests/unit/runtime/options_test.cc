#include "runtime/options.h"

#include <doctest/doctest.h>

#include <array>

#include "base/error.h"

using namespace kelp;
using namespace kelp::runtime;

namespace {
constexpr std::array kSpecs = {OptionSpec{"bundle", 'b', "DIR", ""}, OptionSpec{"detach", 'd', nullptr, ""},
                               OptionSpec{"env", 'e', "E", ""}};

Options parsed(const std::vector<std::string>& words, bool stop) {
  Options options;
  options.parse(kSpecs, words, 0, stop);
  return options;
}
}  // namespace

TEST_CASE("options in all the spellings that runc's parser takes") {
  CHECK(parsed({"--bundle", "/b", "id"}, false).value("bundle") == "/b");
  CHECK(parsed({"--bundle=/b", "id"}, false).value("bundle") == "/b");
  CHECK(parsed({"-bundle", "/b"}, false).value("bundle") == "/b");
  CHECK(parsed({"-b", "/b"}, false).value("bundle") == "/b");
  CHECK(parsed({"-d"}, false).flag("detach"));
  CHECK(!parsed({"--detach=false"}, false).flag("detach"));
  CHECK(parsed({"-e", "a=1", "-e", "b=2"}, false).all("env") == std::vector<std::string>{"a=1", "b=2"});
}

TEST_CASE("words end the options where they belong to the payload") {
  CHECK(parsed({"id", "-d"}, false).flag("detach"));
  const Options payload = parsed({"-d", "id", "ls", "-d"}, true);
  CHECK(payload.words() == std::vector<std::string>{"id", "ls", "-d"});
  CHECK(parsed({"--", "-d"}, false).words() == std::vector<std::string>{"-d"});
}

TEST_CASE("mistakes are named") {
  CHECK_THROWS_WITH_AS(parsed({"--bundel", "x"}, false), "unknown option --bundel", UsageError);
  CHECK_THROWS_WITH_AS(parsed({"--bundle"}, false), "option --bundle needs a value", UsageError);
  CHECK_THROWS_AS(parsed({"--detach=maybe"}, false), UsageError);
  CHECK_THROWS_AS((void)parsed({"--env", "x"}, false).number("env", 0, 0, 9), UsageError);
}
