#include "engine/users.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdlib>

#include "base/error.h"
#include "sys/lock.h"
#include "sys/xattr_tree.h"

using namespace kelp;
using namespace kelp::engine;

namespace {

struct Layers {
  std::string top, above;
  Layers() {
    char pattern[] = "/tmp/kelp-users-XXXXXX";
    top = ::mkdtemp(pattern);
    above = top + "/above";
    ::mkdir(above.c_str(), 0755);
    const std::string below = top + "/below";
    for (const char* directory : {"", "/etc", "/usr"}) ::mkdir((below + directory).c_str(), 0755);
    write("/usr/passwd", "root:x:0:0::/:/bin/sh\n");
    write("/etc/hidden", "");
    // An absolute link, which must stay inside.
    if (::symlink("/usr/passwd", (below + "/etc/passwd").c_str()) < 0) throw_errno("make a link");
    if (::symlink("../../../../../../etc/hosts", (below + "/etc/out").c_str()) < 0) throw_errno("make a link");
  }
  ~Layers() { sys::remove_tree(top); }
  void write(const std::string& path, const std::string& text) const { sys::replace_file(top + "/below" + path, text); }
};

}  // namespace

TEST_CASE("one layer is looked at as a stack of them is") {
  const Layers layers;
  const std::string below = layers.top + "/below";
  const bool marked = ::setxattr((below + "/etc/hidden").c_str(), "user.overlay.whiteout", "y", 1, 0) == 0;
  for (const auto& directories : {std::vector{below}, std::vector{layers.above, below}}) {
    CAPTURE(directories.size());
    const LayeredRoot root(directories);
    CHECK(root.read("/etc/passwd") == "root:x:0:0::/:/bin/sh\n");
    CHECK(!root.read("/etc/out"));
    CHECK(!root.read("/etc/group"));
    CHECK(root.find("/usr")->directory);
    CHECK(!root.find("/usr/passwd/x"));
    if (marked) CHECK(!root.find("/etc/hidden"));
  }
}

TEST_CASE("a file is read once") {
  const Layers layers;
  const LayeredRoot root({layers.top + "/below"});
  CHECK(root.read("/etc/passwd"));
  layers.write("/usr/passwd", "changed");
  CHECK(root.read("/etc/passwd") == "root:x:0:0::/:/bin/sh\n");
}
