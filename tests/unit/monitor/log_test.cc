#include "monitor/log_file.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "monitor/journal.h"
#include "monitor/runtime_log.h"
#include "sys/lock.h"
#include "sys/xattr_tree.h"

using namespace kelp::monitor;

namespace {
struct Scratch {
  std::string path;
  Scratch() {
    char name[] = "/tmp/kelp-log-XXXXXX";
    path = ::mkdtemp(name);
  }
  ~Scratch() { kelp::sys::remove_tree(path); }
};
std::vector<std::string> lines_of(const std::string& path) {
  auto lines = kelp::split(*kelp::sys::read_small_file(path, 64u << 20), '\n');
  if (!lines.empty() && lines.back().empty()) lines.pop_back();
  return lines;
}
}  // namespace

TEST_CASE("lines get a time stamp, a stream and a mark for parts") {
  const Scratch scratch;
  LogFile log(LogFormat::k8s_file, scratch.path + "/log", -1);
  log.write(1, "one\ntw");
  log.write(1, "o\n");
  log.write(2, "\n");
  const auto lines = lines_of(scratch.path + "/log");
  REQUIRE(lines.size() == 4);
  CHECK(lines[0].size() == 35 + std::string(" stdout F one").size());
  CHECK(lines[0].substr(29, 6) == "+00:00");
  CHECK(lines[0].substr(35) == " stdout F one");
  CHECK(lines[1].substr(35) == " stdout P tw");
  CHECK(lines[2].substr(35) == " stdout F o");
  CHECK(lines[3].substr(35) == " stderr F ");
}

TEST_CASE("json lines") {
  const Scratch scratch;
  LogFile log(LogFormat::json_file, scratch.path + "/log", -1);
  log.write(2, "a \"b\"\n");
  const auto lines = lines_of(scratch.path + "/log");
  REQUIRE(lines.size() == 1);
  CHECK(kelp::starts_with(lines[0], R"({"log":"a \"b\"\n","stream":"stderr","time":")"));
  CHECK(kelp::ends_with(lines[0], "Z\"}"));
}

TEST_CASE("more than the buffer holds, and rotation between lines") {
  const Scratch scratch;
  {
    LogFile log(LogFormat::k8s_file, scratch.path + "/big", -1);
    std::string many;
    for (int i = 0; i < 5000; ++i) many += "x\n";
    log.write(1, many);
    log.write(1, std::string(100000, 'y') + "\n");
    const auto lines = lines_of(scratch.path + "/big");
    CHECK(lines.size() == 5001);
    CHECK(lines.back().size() == 100000 + 35 + 10);
  }
  LogFile log(LogFormat::k8s_file, scratch.path + "/small", 100);
  for (int i = 0; i < 4; ++i) log.write(1, "line " + std::to_string(i) + "\n");
  CHECK(lines_of(scratch.path + "/small").size() == 2);  // full, and the last line still stands in it
  log.write(1, "line 4\n");
  CHECK(lines_of(scratch.path + "/small").size() == 1);
  CHECK(lines_of(scratch.path + "/small.1").size() == 2);
}

TEST_CASE("what runtimes say in their logs") {
  const auto crun = parse_runtime_log(
      "{ \"msg\": \"executable file `nope` not found in $PATH: No such file or directory\", \"level\": \"error\", "
      "\"time\": \"2026-01-01T00:00:00Z\" }\n");
  CHECK(crun.error == "executable file `nope` not found in $PATH: No such file or directory");
  CHECK(exit_code_of_words(crun.error) == 127);
  const auto runc = parse_runtime_log(
      R"({"level":"warning","msg":"first","time":"t"})"
      "\nnoise\n"
      R"({"level":"error","msg":"runc create failed: exec: \"x\": permission denied\u00e9","time":"t"})"
      "\n");
  CHECK(runc.warnings == std::vector<std::string>{"first"});
  CHECK(runc.error == "runc create failed: exec: \"x\": permission denied\xc3\xa9");
  CHECK(exit_code_of_words(runc.error) == 126);
  CHECK(exit_code_of_words("something else") == 125);
  CHECK(runc.hint.empty());
  const auto ours =
      parse_runtime_log(R"({"level":"error","msg":"say \"hint\": not this","hint":"printf 'a\\nb'","time":"t"})"
                        "\n");
  CHECK(ours.error == "say \"hint\": not this");
  CHECK(ours.hint == "printf 'a\\nb'");
}

TEST_CASE("output as entries of a journal") {
  const Scratch scratch;
  const std::string path = scratch.path + "/socket";
  const kelp::Fd server(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  REQUIRE(::bind(server.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  LogFile log(Journal(path, "CONTAINER_NAME=web\n"));
  log.write(2, "one\ntwo");
  log.write(1, std::string(20000, 'x') + "\n");
  const auto next = [&] {
    std::string text(40000, '\0');
    const ssize_t size = ::recv(server.get(), text.data(), text.size(), 0);
    text.resize(static_cast<size_t>(std::max<ssize_t>(size, 0)));
    return text;
  };
  CHECK(next() == std::string("CONTAINER_NAME=web\nPRIORITY=3\nMESSAGE\n\3\0\0\0\0\0\0\0one\n", 50));
  const std::string part = next();
  CHECK(part.find("CONTAINER_PARTIAL_MESSAGE=true\nMESSAGE\n") != std::string::npos);
  CHECK(part.substr(part.size() - 4) == "two\n");
  const std::string large = next();
  CHECK(large.find("PRIORITY=6\nMESSAGE\n") != std::string::npos);
  CHECK(large.size() > 20000);
  CHECK_THROWS_AS(Journal(scratch.path + "/nobody", ""), kelp::SysError);
}
