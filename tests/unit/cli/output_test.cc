#include "cli/output.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/help.h"

using namespace kelp::cli;

TEST_CASE("tables are as wide as podman's") {
  CHECK(render_table({{"ID", "NAMES"}, {"0123456789ab", "web"}}) == "ID            NAMES\n0123456789ab  web\n");
  CHECK(render_table({{"A", "B", "C"}, {"x", "", "y"}}) == "A           B           C\nx                       y\n");
}

TEST_CASE("listings") {
  const Json rows = {{{"ID", "1"}, {"Names", "web"}}, {{"ID", "2"}, {"Names", "db"}}};
  ListFormat how;
  how.columns = {{"ID", "CONTAINER ID"}, {"Names", "NAMES"}};
  how.quiet_field = "ID";
  CHECK(render_list(how, rows, nullptr) == "CONTAINER ID  NAMES\n1             web\n2             db\n");
  how.no_heading = true;
  CHECK(render_list(how, rows, nullptr) == "1           web\n2           db\n");
  how.quiet = true;
  CHECK(render_list(how, rows, nullptr) == "1\n2\n");
  how = ListFormat{};
  how.format = "{{.ID}}:{{.Names}}";
  CHECK(render_list(how, rows, nullptr) == "1:web\n2:db\n");
  how.format = "table {{.Names}}\\t{{.ID}}";
  how.columns = {{"ID", "CONTAINER ID"}};
  CHECK(render_list(how, rows, nullptr) == "NAMES       CONTAINER ID\nweb         1\ndb          2\n");
  how.format = "{{.Nope}}";
  CHECK_THROWS_AS(render_list(how, rows, nullptr), kelp::UsageError);
}

TEST_CASE("texts are cut between characters") {
  CHECK(shorten("short", 10) == "short");
  CHECK(shorten("a long command line", 10) == "a long ...");
  CHECK(shorten("\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9", 6) == "\xc3\xa9...");
}
