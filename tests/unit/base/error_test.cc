#include "base/error.h"

#include <doctest/doctest.h>

using namespace kelp;

TEST_CASE("a step puts its name in front of what went wrong inside, and the errno stays") {
  try {
    step("create container", [] {
      step("mount the root filesystem", [] {
        errno = EPERM;
        throw_errno("overlay on {}", "/");
      });
    });
    FAIL("no error");
  } catch (const Error& error) {
    CHECK(error.message() == "create container: mount the root filesystem: overlay on /: Operation not permitted");
    CHECK(error.code() == EPERM);
    CHECK(error.exit_code() == kExitFailure);
  }
}

namespace {
std::string g_seen;
}

TEST_CASE("steps are reported to a listener, in the order they end") {
  g_seen.clear();
  set_step_listener([](const char* name, long, bool failed) { g_seen += std::string(name) + (failed ? "! " : " "); });
  CHECK(step("outer", [] { return step("inner", [] { return 7; }); }) == 7);
  CHECK_THROWS(step("bad", [] { throw_error("no"); }));
  set_step_listener(nullptr);
  CHECK(g_seen == "inner outer bad! ");
}
