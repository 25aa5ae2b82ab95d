#include "engine/trace.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"

using namespace kelp;
using namespace kelp::engine;

TEST_CASE("parts are sorted into the seven steps; time that two share counts once") {
  const auto report = make_trace_report({{1050, 100, false, "kelp-oci", "mounts"},
                                         {1040, 60, false, "kelp-oci", "root filesystem"},
                                         {1000, 70, false, "kelp", "mount the root filesystem"},
                                         {1200, -1, false, "kelp-oci", "exec"},
                                         {1001, 5, true, "kelp", "find the image"}},
                                        1000, 1300);
  CHECK(report.total == 300);
  REQUIRE(report.steps.size() == 7);
  CHECK(report.steps[3].number == 4);
  CHECK(report.steps[3].at == 0);
  CHECK(report.steps[3].took == 100);
  CHECK(report.steps[3].parts[1].at == 40);
  CHECK(report.steps[4].took == 100);
  CHECK(report.steps[6].parts.front().took == -1);
  CHECK(report.steps[6].took == 0);
  CHECK(report.steps[0].parts.empty());
  REQUIRE(report.others.size() == 1);
  CHECK(report.others[0].failed);
}

TEST_CASE("a step is noted by whichever process runs it, and one may end another's") {
  auto page = sys::TracePage::anonymous();
  page.listen("tests");
  const pid_t child = ::fork();
  if (child == 0) {
    step("in the child", [] {});
    sys::trace_begin("exec");
    ::_exit(0);
  }
  REQUIRE(child > 0);
  ::waitpid(child, nullptr, 0);
  CHECK(page.entries().back().took == -1);
  sys::trace_end("exec");
  CHECK_THROWS_AS(step("with an error", [] { throw Error("no"); }), Error);
  const auto entries = page.entries();
  REQUIRE(entries.size() == 3);
  CHECK(entries[0].name == "in the child");
  CHECK(entries[0].program == "tests");
  CHECK(entries[1].took >= 0);
  CHECK(entries[2].failed);
}

TEST_CASE("a page that is full loses what comes after") {
  auto page = sys::TracePage::anonymous();
  page.listen("tests");
  for (int i = 0; i < 1000; ++i) step("again", [] {});
  CHECK(page.entries().size() > 100);
  CHECK(page.entries().size() < 1000);
}
