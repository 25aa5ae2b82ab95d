#include <doctest/doctest.h>

#include "base/error.h"
#include "image/verbs.h"

using namespace kelp;
using namespace kelp::image;

TEST_CASE("words of a verb") {
  const Verb verb{"pull", "platform creds", "quiet", nullptr};
  const Arguments a = parse_arguments({"--platform", "linux/arm64", "--data=/d", "--quiet", "name", "--", "--x"}, verb);
  CHECK(a.value("platform") == "linux/arm64");
  CHECK(a.value("data") == "/d");
  CHECK(a.flag("quiet"));
  CHECK_FALSE(a.value("creds"));
  CHECK(a.positional == std::vector<std::string>{"name", "--x"});
  CHECK_FALSE(parse_arguments({"--quiet=false"}, verb).flag("quiet"));
  CHECK(parse_arguments({"--creds", "a", "--creds", "b"}, verb).values("creds").size() == 2);
  CHECK_THROWS_AS(parse_arguments({"--creds"}, verb), UsageError);
  CHECK_THROWS_AS(parse_arguments({"--what"}, verb), UsageError);
  CHECK_THROWS_AS(static_cast<void>(parse_arguments({"--quiet=maybe"}, verb).flag("quiet")), UsageError);
  CHECK_THROWS_AS(a.need_positional(3, 4), UsageError);
  CHECK_THROWS_AS(a.need_positional(0, 1), UsageError);
}
