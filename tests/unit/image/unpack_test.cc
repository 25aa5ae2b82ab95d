#include "image/unpack.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <string>

#include "base/error.h"
#include "image/pack.h"
#include "image/tar_reader.h"
#include "image/tar_writer.h"
#include "sys/lock.h"
#include "sys/xattr_tree.h"

using namespace kelp;
using namespace kelp::image;
using Type = TarEntry::Type;

namespace {

class TextSource : public Source {
 public:
  explicit TextSource(std::string text) : text_(std::move(text)) {}
  size_t read(void* buffer, size_t size) override {
    const size_t count = std::min({size, size_t{3000}, text_.size() - at_});
    std::memcpy(buffer, text_.data() + at_, count);
    at_ += count;
    return count;
  }

 private:
  std::string text_;
  size_t at_ = 0;
};

class TextSink : public Sink {
 public:
  void write(const void* data, size_t size) override { text.append(static_cast<const char*>(data), size); }
  std::string text;
};

struct Member {
  TarEntry entry;
  std::string data;
};

Member file(const std::string& name, const std::string& data = "x") {
  return {{.name = name, .mode = 0644, .mtime = 1000, .size = data.size()}, data};
}
Member link(Type type, const std::string& name, const std::string& target) {
  return {{.type = type, .name = name, .link = target, .mode = 0777, .mtime = 1000}, ""};
}
Member directory(const std::string& name, unsigned mode = 0755) {
  return {{.type = Type::directory, .name = name, .mode = mode, .mtime = 1000}, ""};
}

std::string tar_of(const std::vector<Member>& members) {
  TextSink sink;
  TarWriter tar(sink);
  for (const Member& member : members) {
    tar.member(member.entry);
    tar.data(member.data.data(), member.data.size());
  }
  tar.finish();
  return sink.text;
}

/// A directory with a root and, beside it, what must stay as it is.
struct Fixture {
  std::string base = "/tmp/kelp-unpack-test-XXXXXX";
  Fd root;
  Fixture() {
    REQUIRE(::mkdtemp(base.data()) != nullptr);
    REQUIRE(::mkdir((base + "/root").c_str(), 0755) == 0);
    REQUIRE(::mkdir((base + "/outside").c_str(), 0755) == 0);
    sys::replace_file(base + "/outside/victim", "untouched");
    root = Fd(::open((base + "/root").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  Fixture(const Fixture&) = delete;
  Fixture& operator=(const Fixture&) = delete;
  ~Fixture() { sys::remove_tree(base); }

  UnpackResult unpack(const std::string& tar) {
    TextSource source(tar);
    UnpackOptions options{.map = store::IdMapping::single()};
    options.owners_file = base + "/owners";
    return unpack_layer(source, "layer", root.get(), options);
  }
  std::string failure(const std::vector<Member>& members) {
    try {
      unpack(tar_of(members));
    } catch (const Error& error) {
      return error.message();
    }
    return "";
  }
  [[nodiscard]] std::string content(const std::string& path) const {
    return sys::read_small_file(base + "/root/" + path).value_or("(none)");
  }
  [[nodiscard]] struct stat info(const std::string& path) const {
    struct stat result {};
    REQUIRE(::lstat((base + "/root/" + path).c_str(), &result) == 0);
    return result;
  }
  [[nodiscard]] bool outside_untouched() const {
    return sys::tree_size(base + "/outside").entries == 1 &&
           sys::read_small_file(base + "/outside/victim") == "untouched";
  }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "files, links, modes and times arrive") {
  const std::string odd = "d/nfd-e\xcc\x81-latin-\xe9";
  const std::string deep = std::string(90, 'a') + "/" + std::string(90, 'b') + "/" + std::string(200, 'c');
  const UnpackResult result = unpack(tar_of({directory("./"),
                                             directory("d/", 02750),
                                             file(odd, "odd"),
                                             file(deep, "deep"),
                                             link(Type::hard_link, "hard", odd),
                                             link(Type::symlink, "soft", "/etc/passwd"),
                                             file("big", std::string(300000, 'z')),
                                             {{.type = Type::fifo, .name = "fifo", .mode = 0600}, ""}}));
  CHECK(result.files == 8);
  CHECK(content(odd) == "odd");
  CHECK(content("hard") == "odd");
  CHECK(info("hard").st_ino == info(odd).st_ino);
  CHECK(content(deep) == "deep");
  CHECK(content("big").size() == 300000);
  CHECK((info("d").st_mode & 07777U) == 02750);
  CHECK(info("d").st_mtim.tv_sec == 1000);
  CHECK(info("big").st_mtim.tv_sec == 1000);
  CHECK(S_ISLNK(info("soft").st_mode));
  CHECK(S_ISFIFO(info("fifo").st_mode));
}

TEST_CASE_FIXTURE(Fixture, "nothing gets out of the root") {
  const std::vector<std::pair<const char*, std::vector<Member>>> hostile = {
      {"..", {file("a/../../outside/x")}},
      {"absolute", {file("/outside/x")}},
      {"link parent", {link(Type::symlink, "l", "../outside"), file("l/x")}},
      {"link parent below", {directory("d"), link(Type::symlink, "d/l", "../../outside"), file("d/l/x")}},
      {"hard link out", {link(Type::hard_link, "h", "../outside/victim")}},
      {"hard link absolute", {link(Type::hard_link, "h", base + "/outside/victim")}},
      {"hard link through a link",
       {link(Type::symlink, "l", base + "/outside"), link(Type::hard_link, "h", "l/victim")}},
      {"whiteout of ..", {file(".wh...")}},
      {"loop", {link(Type::symlink, "a", "b"), link(Type::symlink, "b", "a"), file("a/x")}},
      {"root as a file", {file(".")}},
  };
  for (const auto& archive : hostile) {
    const std::string what = archive.first;
    CAPTURE(what);
    const std::string message = failure(archive.second);
    CHECK(message.find("layer: ") == 0);
    CHECK(outside_untouched());
  }
}

TEST_CASE_FIXTURE(Fixture, "an existing link is replaced, never written through") {
  unpack(tar_of({link(Type::symlink, "s", base + "/outside/victim"), file("s", "data")}));
  CHECK(outside_untouched());
  CHECK(content("s") == "data");
}

TEST_CASE_FIXTURE(Fixture, "links inside the root lead where they would in the container") {
  unpack(tar_of({directory("usr"), directory("usr/lib"), link(Type::symlink, "lib", "usr/lib"),
                 link(Type::symlink, "lib64", "/usr/lib"), file("lib/a", "1"), file("lib64/b", "2"),
                 directory("lib/c", 0700)}));
  CHECK(content("usr/lib/a") == "1");
  CHECK(content("usr/lib/b") == "2");
  CHECK((info("usr/lib/c").st_mode & 0777U) == 0700);
}

TEST_CASE_FIXTURE(Fixture, "a later member wins over an earlier one of another kind") {
  unpack(tar_of({directory("x"), file("x/y"), file("x", "now a file"), file("z"), directory("z"), file("z/in", "deep"),
                 directory("m", 0700), directory("m", 0755)}));
  CHECK(content("x") == "now a file");
  CHECK(content("z/in") == "deep");
  CHECK((info("m").st_mode & 0777U) == 0755);
}

TEST_CASE_FIXTURE(Fixture, "intended owners go to the sidecar in single-ID mode") {
  Member owned = file("a");
  owned.entry.uid = 33;
  owned.entry.gid = 1000;
  unpack(tar_of({owned, file("b")}));
  CHECK(*sys::read_small_file(base + "/owners") == std::string("33 1000 a\0", 10));
}

TEST_CASE_FIXTURE(Fixture, "device nodes are left out with a warning") {
  const UnpackResult result =
      unpack(tar_of({{{.type = Type::character, .name = "null", .mode = 0666, .major = 1, .minor = 3}, ""},
                     {{.type = Type::character, .name = "whiteout", .mode = 0666}, ""}}));
  REQUIRE(result.warnings.size() == 1);
  CHECK(result.warnings[0].find("2 device nodes") == 0);
  CHECK(sys::tree_size(base + "/root").entries == 0);
}

TEST_CASE_FIXTURE(Fixture, "damaged archives are refused") {
  const std::string good = tar_of({file("a", std::string(2000, 'x')), file("b")});
  for (const size_t cut : {size_t{100}, size_t{700}, size_t{2600}}) {
    CAPTURE(cut);
    CHECK_THROWS_AS(unpack(good.substr(0, cut)), Error);
  }
  std::string flipped = good;
  flipped[3] = '!';
  CHECK_THROWS_AS(unpack(flipped), Error);
  CHECK_THROWS_AS(unpack("this is no archive at all" + std::string(600, '.')), Error);
  CHECK(unpack("").files == 0);
  CHECK(unpack(std::string(1024, '\0')).files == 0);
}

TEST_CASE_FIXTURE(Fixture, "what is packed unpacks to the same, twice the same bytes") {
  unpack(tar_of({directory("d", 0750), file("d/a", "1"), link(Type::hard_link, "d/b", "d/a"),
                 link(Type::symlink, "l", std::string(300, 't')), file(std::string(180, 'n'), "long")}));
  const PackOptions options{.map = store::IdMapping::single()};
  TextSink first;
  TextSink second;
  pack_tree(root.get(), first, options);
  pack_tree(root.get(), second, options);
  CHECK(first.text == second.text);
  TextSource source(first.text);
  TarReader reader(source, "packed");
  std::vector<std::string> names;
  TarEntry entry;
  while (reader.next(entry)) {
    names.push_back(entry.name);
    if (entry.name == "d/b") CHECK(entry.link == "d/a");
    if (entry.name == "l") CHECK(entry.link == std::string(300, 't'));
  }
  CHECK(names == std::vector<std::string>{"d/", "d/a", "d/b", "l", std::string(180, 'n')});
}

TEST_CASE("pax, GNU and sparse members") {
  // A header by hand: what TarWriter never writes.
  const auto header = [](char type, const std::string& name, size_t size, bool gnu = false) {
    std::string block(512, '\0');
    std::memcpy(block.data(), name.data(), std::min<size_t>(name.size(), 100));
    const std::string octal = fmt::format("{:011o}", size);
    std::memcpy(block.data() + 100, "0000644", 7);
    std::memcpy(block.data() + 124, octal.data(), 11);
    block[156] = type;
    std::memcpy(block.data() + 257,
                gnu ? "ustar  "
                    : "ustar\0"
                      "00",
                8);
    return block;
  };
  const auto sealed = [](std::string block) {
    std::memset(block.data() + 148, ' ', 8);
    unsigned sum = 0;
    for (const char c : block) sum += static_cast<unsigned char>(c);
    const std::string octal = fmt::format("{:06o}", sum);
    std::memcpy(block.data() + 148, octal.data(), 6);
    block[154] = 0;
    return block;
  };
  const auto padded = [](std::string text) {
    text.resize((text.size() + 511) / 512 * 512, '\0');
    return text;
  };
  const auto first_of = [](const std::string& tar, std::string* data = nullptr) {
    TextSource source(tar);
    TarReader reader(source, "t");
    TarEntry entry;
    if (!reader.next(entry)) throw Error("no member");
    for (std::string_view part = reader.data(); !part.empty(); part = reader.data()) {
      if (data != nullptr) *data += part;
    }
    return entry;
  };
  SUBCASE("GNU long name and base-256 owner") {
    const std::string name(300, 'n');
    std::string member = header('0', "short", 0, true);
    member[108] = static_cast<char>(0x80);
    member[114] = 1;
    const TarEntry entry =
        first_of(sealed(header('L', "././@LongLink", 301, true)) + padded(name + '\0') + sealed(member));
    CHECK(entry.name == name);
    CHECK(entry.uid == 256);
  }
  SUBCASE("pax records") {
    const std::string records = "19 path=e\xcc\x81-\xe9/file\n19 mtime=-1.250000\n27 SCHILY.xattr.user.a=bcd\n";
    const TarEntry entry =
        first_of(sealed(header('x', "p", records.size())) + padded(records) + sealed(header('0', "f", 0)));
    CHECK(entry.name == "e\xcc\x81-\xe9/file");
    CHECK(entry.mtime == -2);
    CHECK(entry.mtime_nsec == 750'000'000);
    CHECK(entry.xattrs.at("user.a") == "bcd");
  }
  SUBCASE("sparse 1.0") {
    const std::string records =
        "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n23 GNU.sparse.name=sp\n"
        "30 GNU.sparse.realsize=100000\n";
    const std::string map = padded("1\n5000\n3\n");
    std::string data;
    const std::string fixed =
        "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n22 GNU.sparse.name=sp\n30 GNU.sparse.realsize=100000\n";
    const TarEntry entry = first_of(sealed(header('x', "p", fixed.size())) + padded(fixed) +
                                        sealed(header('0', "f", 512 + 3)) + map + padded("abc"),
                                    &data);
    CHECK(entry.name == "sp");
    CHECK(entry.size == 100000);
    REQUIRE(entry.extents.size() == 1);
    CHECK(entry.extents[0] == std::pair<std::uint64_t, std::uint64_t>{5000, 3});
    CHECK(data == "abc");
    CHECK_THROWS_AS(first_of(sealed(header('x', "p", records.size())) + padded(records)), Error);
  }
  SUBCASE("bad records") {
    for (const std::string records : {"5 a\n", "999 a=b\n", "x a=b\n", "6 a=b", "7 uid=\xff\n"}) {
      CAPTURE(records);
      CHECK_THROWS_AS(
          first_of(sealed(header('x', "p", records.size())) + padded(records) + sealed(header('0', "f", 0))), Error);
    }
    CHECK_THROWS_AS(first_of(sealed(header('Q', "f", 0))), Error);
  }
}
