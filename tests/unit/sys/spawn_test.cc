#include "sys/spawn.h"

#include <doctest/doctest.h>
#include <fcntl.h>

#include "base/error.h"

using kelp::Fd;
using kelp::sys::run_captured;
using kelp::sys::spawn;
using kelp::sys::SpawnRequest;

TEST_CASE("run_captured collects both streams and the status") {
  SpawnRequest request{.path = "/bin/sh", .argv = {"sh", "-c", "cat; echo oops >&2; exit 7"}};
  const auto result = run_captured(request, "hello\n");
  CHECK(result.status == 7);
  CHECK(result.out == "hello\n");
  CHECK(result.err == "oops\n");
}

TEST_CASE("run_captured survives a child that does not read") {
  SpawnRequest request{.path = "/bin/sh", .argv = {"sh", "-c", "exit 0"}};
  CHECK(run_captured(request, std::string(1 << 20, 'x')).status == 0);
}

TEST_CASE("a missing program is an error with its errno") {
  try {
    spawn({.path = "/nonexistent/program", .argv = {"program"}});
    FAIL("no exception");
  } catch (const kelp::SysError& error) {
    CHECK(error.code() == ENOENT);
  }
}

TEST_CASE("descriptors are placed even when sources and targets cross") {
  Fd a(::open("/dev/null", O_RDONLY | O_CLOEXEC)), b(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
  const auto path_of = [](int fd) { return "readlink /proc/self/fd/" + std::to_string(fd) + "; "; };
  SpawnRequest request{.path = "/bin/sh", .argv = {"sh", "-c", path_of(b.get()) + path_of(a.get())}};
  request.fds = {{a.get(), b.get()}, {b.get(), a.get()}};
  CHECK(run_captured(request).out == "/dev/null\n/dev/zero\n");
}

TEST_CASE("the environment is replaced only when given") {
  SpawnRequest request{.path = "/usr/bin/env", .argv = {"env"}};
  request.env = std::vector<std::string>{"A=1"};
  CHECK(run_captured(request).out == "A=1\n");
}

TEST_CASE("death by a signal is 128 + n") {
  CHECK(run_captured({.path = "/bin/sh", .argv = {"sh", "-c", "kill -9 $$"}}).status == 137);
}
