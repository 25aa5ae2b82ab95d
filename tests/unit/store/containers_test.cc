#include "store/containers.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "base/error.h"
#include "store/record_json.h"
#include "store/volumes.h"
#include "sys/lock.h"
#include "sys/xattr_tree.h"

using namespace kelp;
using namespace kelp::store;

namespace {

struct TemporaryStore {
  Layout layout;
  std::string top;
  TemporaryStore() {
    char pattern[] = "/tmp/kelp-store-XXXXXX";
    top = ::mkdtemp(pattern);
    layout = {top + "/data", top + "/run", top + "/cache"};
    prepare(layout);
  }
  ~TemporaryStore() { sys::remove_tree(top); }
};

ContainerRecord named(const std::string& name) {
  ContainerRecord record;
  record.name = name;
  record.created = std::chrono::system_clock::now();
  record.config.command = {"true"};
  return record;
}

ContainerRecord make(const Layout& layout, const std::string& name) {
  return ContainerDraft::begin(layout, named(name)).publish();
}

}  // namespace

TEST_CASE("a container is found by name, id and unique prefix") {
  TemporaryStore store;
  const ContainerRecord web = make(store.layout, "web");
  CHECK(web.id.size() == 64);
  CHECK(get(store.layout, "web").id == web.id);
  CHECK(get(store.layout, web.id).name == "web");
  CHECK(get(store.layout, web.id.substr(0, 20)).name == "web");
  CHECK_FALSE(find(store.layout, "we"));
  CHECK_FALSE(find(store.layout, "../web"));
  CHECK_THROWS_AS(get(store.layout, "nope"), UsageError);
  CHECK(list(store.layout).size() == 1);
  CHECK(status(store.layout, web).status == Status::created);
}

TEST_CASE("a name in use is refused and a draft that is dropped leaves nothing") {
  TemporaryStore store;
  make(store.layout, "web");
  CHECK_THROWS_AS(ContainerDraft::begin(store.layout, named("web")), UsageError);
  CHECK(get(store.layout, "web").name == "web");
  { const auto draft = ContainerDraft::begin(store.layout, named("other")); }
  CHECK(names(store.layout) == Strings{"web"});
  CHECK(sweep(store.layout).empty());
}

TEST_CASE("the name of a maker that died is taken over, its draft swept") {
  TemporaryStore store;
  const std::string dead(64, 'a');
  REQUIRE(::symlink(dead.c_str(), (store.layout.names() + "/web").c_str()) == 0);
  const std::string draft = store.layout.containers() + "/.new/" + dead;
  REQUIRE(::mkdir(draft.c_str(), 0700) == 0);
  const ContainerRecord web = make(store.layout, "web");
  CHECK(get(store.layout, "web").id == web.id);
  sweep(store.layout);
  CHECK(::access(draft.c_str(), F_OK) < 0);
}

TEST_CASE("generated names have two words") {
  TemporaryStore store;
  const ContainerRecord record = make(store.layout, "");
  CHECK(record.name.find('_') != std::string::npos);
  CHECK(get(store.layout, record.name).id == record.id);
}

TEST_CASE("rename moves the name, the trash takes the directory") {
  TemporaryStore store;
  ContainerRecord record = make(store.layout, "old");
  record = rename_container(store.layout, record, "new");
  CHECK_FALSE(find(store.layout, "old"));
  CHECK(get(store.layout, "new").id == record.id);
  CHECK(move_to_trash(store.layout, record));
  CHECK_FALSE(find(store.layout, "new"));
  CHECK(sweep(store.layout) == Strings{record.id});
  CHECK_FALSE(move_to_trash(store.layout, record));
}

TEST_CASE("names") {
  for (const char* good : {"a", "web-1", "A.b_c"}) CHECK_NOTHROW(check_name(good, "container"));
  for (const char* bad : {"", "-a", ".a", "a b", "a/b", "a\n", "\xc3\xa4"})
    CHECK_THROWS_AS(check_name(bad, "container"), UsageError);
}

TEST_CASE("a record survives its JSON, defaults are left out") {
  ContainerRecord record = named("web");
  record.id = std::string(64, 'b');
  record.config.entrypoint.emplace();
  record.config.env = {{"A", "1"}, {"B", ""}};
  record.config.resources.memory = 1 << 20;
  record.config.resources.cpus = 1.5;
  record.config.ports = {{"127.0.0.1", 8080, 80, "udp"}};
  record.config.stop_timeout = 0;
  record.config.health.emplace();
  const std::string text = to_json(record);
  const ContainerRecord back = record_from_json(text, "test");
  CHECK(to_json(back) == text);
  CHECK(back.config.entrypoint);
  CHECK(back.config.resources.cpus == 1.5);
  CHECK(back.config.ports.at(0).protocol == "udp");
  CHECK(back.config.stop_timeout == 0U);
  CHECK(text.find("sig_proxy") == std::string::npos);
  CHECK_THROWS_AS(record_from_json("{\"schema\":2}", "x"), Error);
  const auto old = record_from_json(R"({"schema":1,"config":{"env_merge":{"A":"1","B":"$A"}}})", "x");
  CHECK(old.config.env_merge == Strings{"A=1", "B=$A"});
  CHECK_THROWS_AS(record_from_json("{\"schema\":1,\"config\":{\"tty\":3}}", "x"), Error);
  CHECK_THROWS_AS(record_from_json("", "x"), Error);
}

TEST_CASE("an exit that nobody recorded is unknown, not zero") {
  TemporaryStore store;
  const ContainerRecord record = make(store.layout, "web");
  ::mkdir((store.layout.container(record.id) + "/work").c_str(), 0700);
  ::mkdir((store.layout.container(record.id) + "/work/work").c_str(), 0700);
  CHECK(status(store.layout, record).exit_unknown);
  ExitRecord exit;
  exit.code = 3;
  exit.finished = std::chrono::system_clock::now();
  write_exit_record(store.layout, record.id, exit);
  const ContainerStatus after = status(store.layout, record);
  CHECK(after.status == Status::exited);
  CHECK(after.last_exit->code == 3);
  CHECK_FALSE(after.exit_unknown);
}

TEST_CASE("volumes") {
  TemporaryStore store;
  VolumeRequest request;
  request.name = "data";
  request.labels = {{"a", "b"}};
  create_volume(store.layout, request);
  CHECK_THROWS_AS(create_volume(store.layout, request), UsageError);
  request.ignore_if_exists = true;
  CHECK(create_volume(store.layout, request).labels.at("a") == "b");
  CHECK(get_volume(store.layout, "dat").name == "data");
  ContainerRecord user = named("user");
  user.config.mounts = {{"volume", "data", "/data", {}}};
  ContainerDraft::begin(store.layout, user).publish();
  const VolumeRecord volume = get_volume(store.layout, "data");
  CHECK(volume_users(store.layout, "data").size() == 1);
  CHECK_THROWS_AS(remove_volume(store.layout, volume), UsageError);
  remove_volume(store.layout, volume, true);
  CHECK(list_volumes(store.layout).empty());
  request.driver = "nfs";
  CHECK_THROWS_AS(create_volume(store.layout, request), UsageError);
}
