#include "store/images.h"

#include <doctest/doctest.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "base/digest_name.h"
#include "base/error.h"
#include "store/blobs.h"
#include "store/image_index.h"
#include "store/layers.h"
#include "store/prune.h"
#include "sys/lock.h"
#include "sys/safe_path.h"
#include "sys/xattr_tree.h"

using namespace kelp;
using namespace kelp::store;

namespace {

/// A store in a fresh directory; gone at the end.
struct Fixture {
  Layout layout;
  Fixture() {
    std::string path = "/tmp/kelp-store-test-XXXXXX";
    REQUIRE(::mkdtemp(path.data()) != nullptr);
    layout.data = path + "/data";
    layout.run = path + "/run";
    layout.cache = path + "/cache";
    for (const std::string& each :
         {layout.blobs(), layout.layers(), layout.locks(), layout.trash(), layout.containers(), layout.run}) {
      sys::mkdirs(each, 0700);
    }
    root = path;
  }
  Fixture(const Fixture&) = delete;
  Fixture& operator=(const Fixture&) = delete;
  ~Fixture() { sys::remove_tree(root); }
  std::string root;

  static std::string digest(char c) { return "sha256:" + std::string(64, c); }
  static std::string hex(char c) { return std::string(64, c); }

  /// Blobs need not match their names here: nobody hashes below image/.
  ImageRecord add(char manifest, char config, const std::vector<std::string>& names, const std::string& list = "",
                  const std::vector<std::string>& repos = {}) {
    put_blob(layout, DigestName::require(digest('1')), "layer");
    put_blob(layout, DigestName::require(digest(config)),
             R"({"created":"2024-01-01T00:00:00Z","architecture":"amd64","os":"linux","config":{"Cmd":["sh"]},)"
             R"("rootfs":{"type":"layers","diff_ids":[")" +
                 digest('2') + R"("]}})");
    put_blob(layout, DigestName::require(digest(manifest)),
             R"({"schemaVersion":2,"config":{"digest":")" + digest(config) + R"(","size":3},"layers":[{"digest":")" +
                 digest('1') + R"(","size":5}]})");
    NewImage image;
    image.manifest.digest = digest(manifest);
    image.manifest.size = 9;
    image.chains = {hex('2')};
    image.names = names;
    image.list_digest = list;
    image.repos = repos;
    return add_image(layout, image);
  }
};

const std::string kNginx = "docker.io/library/nginx:latest";

}  // namespace

TEST_CASE_FIXTURE(Fixture, "an image is found by every spelling of its name, by id and by digest") {
  add('a', 'b', {kNginx}, digest('9'));
  for (const std::string& text : {std::string("nginx"), std::string("nginx:latest"), std::string("library/nginx"),
                                  kNginx, hex('b'), std::string("bbb"), "sha256:" + hex('b'), digest('a'), digest('9'),
                                  "nginx@" + digest('a'), "nginx@" + digest('9'), "nginx:other@" + digest('a')}) {
    CAPTURE(text);
    const auto found = find_image(layout, text);
    REQUIRE(found);
    CHECK(found->id == hex('b'));
    CHECK(found->digest == digest('a'));
    CHECK(found->config.cmd == std::vector<std::string>{"sh"});
    CHECK(found->layers.at(0).chain == hex('2'));
  }
  CHECK_FALSE(find_image(layout, "nginx:1"));
  CHECK_FALSE(find_image(layout, "quay.io/library/nginx"));
  CHECK_FALSE(find_image(layout, "redis@" + digest('a')));
  CHECK(find_image(layout, "nginx")->repo_digests() ==
        std::vector<std::string>{"docker.io/library/nginx@" + digest('a'), "docker.io/library/nginx@" + digest('9')});
  CHECK_THROWS_AS(require_image(layout, "ngnix"), UsageError);
}

TEST_CASE_FIXTURE(Fixture, "a copy of another index.json is not believed") {
  add('a', 'b', {kNginx});
  const std::string copy = layout.image_records() + "/names";
  const std::string text = *sys::read_small_file(copy);
  sys::replace_file(copy, text.substr(0, text.size() / 2));
  CHECK(find_image(layout, "nginx"));
  sys::replace_file(copy, "");
  CHECK(find_image(layout, "nginx"));
  ::unlink(copy.c_str());
  CHECK(find_image(layout, "nginx"));
  sys::replace_file(copy, text);
  const std::string index = *sys::read_small_file(layout.index());
  sys::replace_file(layout.index(), R"({"schemaVersion":2,"manifests":[]})");
  CHECK_FALSE(find_image(layout, "nginx"));
  sys::replace_file(layout.index(), index);
  CHECK(find_image(layout, "nginx"));
}

TEST_CASE_FIXTURE(Fixture, "a brief listing reads no records") {
  const ImageRecord image = add('a', 'b', {kNginx});
  add('c', 'd', {});
  tag_image(layout, image, "docker.io/library/web:1");
  for (const char manifest : {'a', 'c'}) REQUIRE(::unlink(layout.image_record(hex(manifest)).c_str()) == 0);
  const auto check = [&] {
    const auto brief = list_images(layout, true);
    REQUIRE(brief.size() == 2);
    for (const ImageRecord& each : brief) {
      CHECK(each.created == "2024-01-01T00:00:00Z");
      CHECK(each.size == image.size);
      CHECK(each.platform.str() == "linux/amd64");
      CHECK(each.names.size() == (each.digest == digest('a') ? 2 : 0));
    }
  };
  check();
  // Another tool writes the index: the copy is not believed, but what it says of an image stays true.
  sys::replace_file(layout.index(), sys::read_small_file(layout.index()).value() + "\n");
  CHECK(list_images(layout, true).empty());
  edit_index(layout, [](std::vector<IndexEntry>&) {});
  check();
}

TEST_CASE_FIXTURE(Fixture, "a name moves to the newer image and leaves the older one dangling") {
  add('a', 'b', {kNginx});
  add('c', 'd', {kNginx});
  CHECK(find_image(layout, "nginx")->id == hex('d'));
  CHECK(find_image(layout, hex('b'))->names.empty());
  CHECK(list_images(layout).size() == 2);
  CHECK(list_image_names(layout) == std::vector<std::string>{kNginx});
  add('a', 'b', {kNginx});
  CHECK(find_image(layout, "nginx")->id == hex('b'));
  CHECK(list_images(layout).size() == 2);
}

TEST_CASE_FIXTURE(Fixture, "tag and untag") {
  const ImageRecord image = add('a', 'b', {kNginx});
  tag_image(layout, image, "localhost/x:1");
  CHECK(find_image(layout, "x:1")->names.size() == 2);
  CHECK_THROWS_AS(untag_image(layout, image, {"localhost/y:1"}), UsageError);
  untag_image(layout, image, {});
  CHECK(find_image(layout, hex('b'))->names.empty());
  CHECK(read_full_entries(layout).size() == 1);
}

TEST_CASE_FIXTURE(Fixture, "removal follows podman's rules") {
  const ImageRecord image = add('a', 'b', {kNginx});
  tag_image(layout, image, "localhost/x:1");
  CHECK_THROWS_AS(remove_image(layout, "bbb", false, {}), UsageError);
  RemovedImage removed = remove_image(layout, "x:1", false, {hex('b')}).value();
  CHECK(removed.untagged == std::vector<std::string>{"localhost/x:1"});
  CHECK(removed.deleted.empty());
  CHECK_THROWS_AS(remove_image(layout, "nginx", false, {hex('b')}), UsageError);
  CHECK(find_image(layout, "nginx"));
  removed = remove_image(layout, "nginx", false, {}).value();
  CHECK(removed.deleted == hex('b'));
  CHECK_FALSE(find_image(layout, hex('b')));
  CHECK_FALSE(remove_image(layout, "nginx", true, {}).has_value());
}

TEST_CASE_FIXTURE(Fixture, "a sweep takes what nothing reaches, and nothing else") {
  add('a', 'b', {kNginx});
  put_blob(layout, DigestName::require(digest('7')), "garbage");
  const IdMapping map = IdMapping::full();
  for (const char c : {'2', '8'}) {
    LayerBuilder builder(layout, hex(c), map);
    REQUIRE_FALSE(builder.complete());
    builder.publish({.diff_id = digest(c), .bytes = 10});
  }
  CHECK(layer_ready(layout, hex('2'), map));
  CHECK(overlay_lowers(layout, {hex('2'), hex('8')}, map).size() == 2);
  SweepResult swept = sweep_images(layout);
  CHECK(swept.blobs == std::vector<std::string>{digest('7')});
  CHECK(swept.layers == std::vector<std::string>{hex('8') + "/full"});
  CHECK(layer_ready(layout, hex('2'), map));
  remove_image(layout, "nginx", false, {});
  swept = sweep_images(layout);
  CHECK(swept.blobs.size() == 3);
  CHECK(swept.layers.size() == 1);
  CHECK(list_blobs(layout).empty());
  empty_trash(layout);
  CHECK(sys::tree_size(layout.trash()).entries == 0);
}

TEST_CASE_FIXTURE(Fixture, "a layer of an earlier boot is used only when it was marked") {
  const IdMapping map = IdMapping::full();
  { LayerBuilder(layout, hex('2'), map).publish({.diff_id = digest('2')}); }
  CHECK(LayerBuilder(layout, hex('2'), map).complete());
  const std::string path = layout.layer(hex('2'), "full");
  std::string text = *sys::read_small_file(path + "/layer.json");
  const size_t at = text.find(boot_id());
  REQUIRE(at != std::string::npos);
  text[at] = text[at] == '0' ? '1' : '0';
  sys::replace_file(path + "/layer.json", text);
  CHECK_FALSE(layer_ready(layout, hex('2'), map));
  CHECK(missing_layers(layout, {hex('2')}, map) == std::vector<size_t>{0});
  CHECK_THROWS_AS(overlay_lowers(layout, {hex('2')}, map), Error);
  { LayerBuilder(layout, hex('2'), map).publish({.diff_id = digest('2')}); }
  CHECK(layer_ready(layout, hex('2'), map));
  sync_layers(layout);
  CHECK(::access((path + "/synced").c_str(), F_OK) == 0);
}

TEST_CASE_FIXTURE(Fixture, "a dropped builder leaves nothing") {
  { const LayerBuilder builder(layout, hex('2'), IdMapping::full()); }
  CHECK(sys::tree_size(layout.layers()).entries == 0);
  CHECK(sys::tree_size(layout.locks()).entries <= 1);
}

TEST_CASE_FIXTURE(Fixture, "partial blobs resume, anonymous ones go") {
  const DigestName name = DigestName::require(digest('4'));
  { BlobWriter(layout, name).write("half"); }
  {
    BlobWriter writer(layout, name);
    CHECK(writer.offset() == 4);
    writer.write("more");
    writer.publish(name);
  }
  CHECK(read_blob(layout, name, 100) == "halfmore");
  CHECK(BlobWriter(layout, name).complete());
  { BlobWriter(layout).write("x"); }
  CHECK(sys::tree_size(layout.partial_downloads()).entries == 0);
  CHECK_THROWS_AS(read_blob(layout, name, 3), Error);
}

TEST_CASE("id maps") {
  const IdMapping map = IdMapping::ranges({{0, 1, 1000}, {1000, 0, 1}}, {{0, 0, 10}});
  CHECK(map.uid(0) == 1);
  CHECK(map.uid(1000) == 0);
  CHECK_FALSE(map.uid(1001));
  CHECK(map.container_uid(0) == 1000);
  CHECK(map.key.size() == 18);
  CHECK(IdMapping::full().uid(70000) == 70000);
}
