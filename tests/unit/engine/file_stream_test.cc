#include "engine/file_stream.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "base/error.h"
#include "base/owned.h"
#include "sys/clone.h"
#include "sys/lock.h"
#include "sys/safe_path.h"
#include "sys/xattr_tree.h"

using namespace kelp;
using namespace kelp::engine;

namespace {

struct Trees {
  std::string top;
  Trees() {
    char pattern[] = "/tmp/kelp-copy-XXXXXX";
    top = ::mkdtemp(pattern);
    sys::mkdirs(top + "/from/sub", 0750);
    sys::mkdirs(top + "/to", 0755);
    sys::replace_file(top + "/from/file", std::string(600'000, 'x'), 0640);
    sys::replace_file(top + "/from/sub/small", "s");
    REQUIRE(::symlink("../../etc", (top + "/from/link").c_str()) == 0);
  }
  ~Trees() { sys::remove_tree(top); }

  void copy(const std::string& from, const std::string& to, const ReceiveOptions& options = {}) const {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    Fd in(ends[0]);
    Fd out(ends[1]);
    std::signal(SIGPIPE, SIG_IGN);
    sys::Child sender = sys::clone_child(0, [&] {
      in.reset();
      send_files(out.get(), -1, from);
      return 0;
    });
    out.reset();
    receive_files(in.get(), -1, to, options);
  }
  [[nodiscard]] std::string text(const std::string& path) const {
    return sys::read_small_file(top + path).value_or("-");
  }
};

}  // namespace

TEST_CASE_FIXTURE(Trees, "cp's rules for files") {
  copy(top + "/from/file", top + "/to");
  CHECK(text("/to/file").size() == 600'000);
  copy(top + "/from/sub/small", top + "/to/file");
  CHECK(text("/to/file") == "s");
  copy(top + "/from/sub/small", top + "/to/new");
  CHECK(text("/to/new") == "s");
  CHECK_THROWS_AS(copy(top + "/from/sub/small", top + "/to/none/"), Error);
  CHECK_THROWS_AS(copy(top + "/from/sub/small", top + "/no/such"), Error);
  CHECK_THROWS_AS(copy(top + "/from/nope", top + "/to"), Error);
  CHECK_THROWS_AS(copy(top + "/from/sub", top + "/to/new"), Error);
}

TEST_CASE_FIXTURE(Trees, "cp's rules for directories") {
  copy(top + "/from", top + "/to");
  CHECK(text("/to/from/sub/small") == "s");
  copy(top + "/from", top + "/to/other");
  CHECK(text("/to/other/sub/small") == "s");
  struct stat info {};
  CHECK(::stat((top + "/to/other/sub").c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0750);
  CHECK(::lstat((top + "/to/other/link").c_str(), &info) == 0);
  CHECK(S_ISLNK(info.st_mode));
  copy(top + "/from/.", top + "/to");
  CHECK(text("/to/sub/small") == "s");
}
