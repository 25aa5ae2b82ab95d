#include "image/transports/tar_split.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "base/base64.h"
#include "base/error.h"
#include "image/text_source.h"
#include "image/transports/containers_storage.h"
#include "sys/lock.h"
#include "sys/xattr_tree.h"

using namespace kelp;
using namespace kelp::image;

namespace {

struct Tree {
  Tree() {
    REQUIRE(::mkdtemp(path.data()) != nullptr);
    sys::replace_file(path + "/a", "contents of a");
    REQUIRE(::mkdir((path + "/d").c_str(), 0755) == 0);
    sys::replace_file(path + "/d/\xff", "raw");
    REQUIRE(::symlink("/etc/passwd", (path + "/link").c_str()) == 0);
    fd = Fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  ~Tree() { sys::remove_tree(path); }
  std::string path = "/tmp/kelp-tar-split-XXXXXX";
  Fd fd;
};

std::string piece(const std::string& bytes) {
  return R"({"type":2,"payload":")" + base64_encode(bytes) + R"(","position":0})" + "\n";
}

std::string made(const Tree& tree, const std::string& recipe) {
  TextSource lines(recipe);
  TarSplitSource source(lines, tree.fd.get(), "layer x");
  std::string result;
  char buffer[5];
  while (const size_t got = source.read(buffer, sizeof buffer)) result.append(buffer, got);
  return result;
}

}  // namespace

TEST_CASE("a tar comes back from its recipe and its files") {
  const Tree tree;
  const std::string recipe =
      piece("HEAD") + R"({"type":1,"name":"./a","size":13,"payload":"AAAAAAAAAAA=","position":1})" + "\n" +
      piece("PAD") + R"({"type":1,"name_raw":")" + base64_encode("d/\xff") + R"(","size":3,"position":2})" + "\n" +
      R"({"type":1,"name":"empty","size":0})" + "\n" + R"({"type":2,"payload":null})" + "\n" + piece("END");
  CHECK(made(tree, recipe) == "HEADcontents of aPADrawEND");
  TextSource lines(recipe);
  CHECK(tar_split_size(lines, "layer x") == 4 + 13 + 3 + 3 + 3);
  CHECK(made(tree, "").empty());
}

TEST_CASE("a recipe leads nowhere else, and damage is an error") {
  const Tree tree;
  CHECK_THROWS_AS(made(tree, R"({"type":1,"name":"link","size":5})"), Error);
  CHECK_THROWS_AS(made(tree, R"({"type":1,"name":"../../etc/passwd","size":5})"), Error);
  CHECK_THROWS_AS(made(tree, R"({"type":1,"name":"a","size":14})"), Error);  // shorter than it was
  CHECK_THROWS_AS(made(tree, R"({"type":1,"name":"gone","size":1})"), Error);
  CHECK_THROWS_AS(made(tree, R"({"type":3})"), Error);
  CHECK_THROWS_AS(made(tree, R"({"type":2,"payload":"?"})"), Error);
  CHECK_THROWS_AS(made(tree, "[]"), Error);
  CHECK_THROWS_AS(made(tree, "no JSON"), Error);
  TextSource huge(R"({"type":1,"name":"a","size":18446744073709551615})"
                  "\n"
                  R"({"type":1,"name":"a","size":2})");
  CHECK_THROWS_AS(tar_split_size(huge, "x"), Error);
}

TEST_CASE("names of a store of containers/storage") {
  StorageName name = parse_storage_name("[overlay@/srv/storage+/run/storage:overlay.mountopt=nodev]quay.io/a/b:1");
  CHECK(name.driver == "overlay");
  CHECK(name.root == "/srv/storage");
  CHECK(name.image == "quay.io/a/b:1");
  name = parse_storage_name("[/srv/storage]@0123");
  CHECK(name.driver.empty());
  CHECK(name.root == "/srv/storage");
  CHECK(name.image == "@0123");
  name = parse_storage_name("nginx");
  CHECK(name.root.empty());
  CHECK(name.image == "nginx");
  CHECK_THROWS_AS(parse_storage_name("[overlay@/srv"), UsageError);
  CHECK_THROWS_AS(parse_storage_name("[overlay@srv]x"), UsageError);
}
