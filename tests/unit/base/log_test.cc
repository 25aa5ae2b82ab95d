#include "base/log.h"

#include <doctest/doctest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/failure.h"
#include "base/owned.h"

using namespace kelp;

namespace {
/// What log::failure() writes in the given format.
std::string written(log::Format format, std::string_view text, std::string_view hint) {
  const log::Sink before = log::sink();
  const Fd file(::memfd_create("log", MFD_CLOEXEC));
  log::set_sink({.fd = file.get(), .format = format, .program = "kelp-oci"});
  log::failure(text, hint);
  log::set_sink(before);
  char buffer[1024];
  const ssize_t count = ::pread(file.get(), buffer, sizeof buffer, 0);
  return {buffer, static_cast<size_t>(count)};
}
}  // namespace

TEST_CASE("the error that ends a program, and the command that mends it") {
  CHECK(written(log::Format::text, "no cgroup", "") == "kelp-oci: no cgroup\n");
  CHECK(written(log::Format::text, "no cgroup", "log in") == "kelp-oci: no cgroup\nhint: log in\n");
  const std::string plain = written(log::Format::json, "no cgroup", "");
  CHECK(plain.find(R"({"level":"error","msg":"no cgroup","time":")") == 0);
  const std::string hinted = written(log::Format::json, "no \"cgroup\"", "printf 'a\\nb'");
  CHECK(hinted.find(R"({"level":"error","msg":"no \"cgroup\"","hint":"printf 'a\\nb'","time":")") == 0);
}
