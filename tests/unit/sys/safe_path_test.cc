#include "sys/safe_path.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "base/error.h"
#include "sys/lock.h"
#include "sys/xattr_tree.h"

using namespace kelp;
using namespace kelp::sys;

namespace {

struct TemporaryRoot {
  std::string path;
  Fd fd;
  TemporaryRoot() {
    char pattern[] = "/tmp/kelp-root-XXXXXX";
    path = ::mkdtemp(pattern);
    fd = Fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  ~TemporaryRoot() { remove_tree(path); }
  [[nodiscard]] int get() const { return fd.get(); }
};

std::string text_of(int fd) { return read_rest(fd, "test"); }

}  // namespace

TEST_CASE("links resolve inside the root, by openat2 and by the walk") {
  const TemporaryRoot root;
  mkdirs_in_root(root.get(), "/etc/deep/er", 0755);
  replace_file(root.path + "/etc/passwd", "inside");
  REQUIRE(::symlink("/etc/passwd", (root.path + "/absolute").c_str()) == 0);
  REQUIRE(::symlink("../../../../../etc/passwd", (root.path + "/etc/deep/up").c_str()) == 0);
  REQUIRE(::symlink("loop", (root.path + "/loop").c_str()) == 0);
  REQUIRE(::symlink("/etc", (root.path + "/dir").c_str()) == 0);
  for (const char* path : {"/absolute", "etc/deep/up", "dir/passwd", "/../../etc/passwd", "dir/deep/../passwd"}) {
    CAPTURE(path);
    CHECK(text_of(open_in_root(root.get(), path, O_RDONLY).get()) == "inside");
    CHECK(text_of(sys::detail::walk_in_root(root.get(), path, O_RDONLY, 0).get()) == "inside");
  }
  CHECK_FALSE(try_open_in_root(root.get(), "loop", O_RDONLY));
  CHECK(errno == ELOOP);
  CHECK_FALSE(sys::detail::walk_in_root(root.get(), "loop", O_RDONLY, 0));
  CHECK(errno == ELOOP);
  CHECK_FALSE(sys::detail::walk_in_root(root.get(), "absolute/x", O_RDONLY, 0));
  CHECK(errno == ENOTDIR);
  CHECK_THROWS_AS(open_beneath(root.get(), "../x", O_RDONLY), SysError);
  CHECK_THROWS_AS(open_beneath(root.get(), "dir/passwd", O_RDONLY), SysError);
  CHECK(open_beneath(root.get(), "etc/passwd", O_RDONLY).valid());
}

TEST_CASE("directories are made where links lead") {
  const TemporaryRoot root;
  REQUIRE(::symlink("/real", (root.path + "/link").c_str()) == 0);
  mkdirs_in_root(root.get(), "/real", 0755);
  mkdirs_in_root(root.get(), "link/a/b", 0700);
  struct stat info {};
  CHECK(::stat((root.path + "/real/a/b").c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0700);
}

TEST_CASE("clean_path") {
  CHECK(clean_path("/a//b/../c/") == "/a/c");
  CHECK(clean_path("/../..") == "/");
  CHECK(clean_path("../a/./b") == "../a/b");
  CHECK(clean_path("") == ".");
}

TEST_CASE("a tree is copied with its links, modes, holes and attributes, then removed") {
  const TemporaryRoot root;
  mkdirs_in_root(root.get(), "from/sub", 0750);
  replace_file(root.path + "/from/file", "text", 0640);
  REQUIRE(::link((root.path + "/from/file").c_str(), (root.path + "/from/sub/again").c_str()) == 0);
  REQUIRE(::symlink("nowhere", (root.path + "/from/link").c_str()) == 0);
  ::mkfifo((root.path + "/from/fifo").c_str(), 0600);
  REQUIRE(::truncate((root.path + "/from/file").c_str(), 1 << 20) == 0);
  const bool xattrs = ::setxattr((root.path + "/from/sub").c_str(), "user.kelp", "v", 1, 0) == 0;
  mkdirs_in_root(root.get(), "to", 0755);
  const Fd from = open_in_root(root.get(), "from", O_RDONLY | O_DIRECTORY);
  const Fd to = open_in_root(root.get(), "to", O_RDONLY | O_DIRECTORY);
  copy_tree(from.get(), to.get());
  struct stat one {};
  struct stat two {};
  REQUIRE(::stat((root.path + "/to/file").c_str(), &one) == 0);
  REQUIRE(::stat((root.path + "/to/sub/again").c_str(), &two) == 0);
  CHECK(one.st_ino == two.st_ino);
  CHECK(one.st_size == 1 << 20);
  CHECK((one.st_mode & 0777) == 0640);
  REQUIRE(::stat((root.path + "/to/sub").c_str(), &one) == 0);
  CHECK((one.st_mode & 0777) == 0750);
  CHECK(::lstat((root.path + "/to/link").c_str(), &one) == 0);
  char value[8];
  if (xattrs) CHECK(::getxattr((root.path + "/to/sub").c_str(), "user.kelp", value, sizeof value) == 1);
  ::chmod((root.path + "/to/sub").c_str(), 0);
  remove_tree_at(root.get(), "to");
  CHECK(::access((root.path + "/to").c_str(), F_OK) < 0);
  remove_tree_at(root.get(), "to");
}

TEST_CASE("locks exclude, and follow a file that was replaced") {
  const TemporaryRoot root;
  const std::string path = root.path + "/lock";
  auto held = std::optional(FileLock::exclusive(path));
  CHECK_FALSE(FileLock::try_exclusive(path));
  ::unlink(path.c_str());
  CHECK(FileLock::try_exclusive(path));  // a new file of that name
  held.reset();
  CHECK(FileLock::try_shared(path));
}

TEST_CASE("an attribute of a whole tree") {
  const TemporaryRoot root;
  const std::string& top = root.path;
  mkdirs(top + "/a/b", 0755);
  replace_file(top + "/a/b/file", "");
  if (::setxattr(top.c_str(), "user.test", "old", 3, 0) < 0) return;  // a file system without them
  set_xattr_of_tree(top, "user.test", "new");
  for (const char* path : {"", "/a", "/a/b", "/a/b/file"}) {
    char value[16] = {};
    CHECK(::getxattr((top + path).c_str(), "user.test", value, sizeof value) == 3);
    CHECK(std::string(value) == "new");
  }
}
