#include "image/transports/transport_name.h"

#include <doctest/doctest.h>

#include "base/error.h"

using namespace kelp;
using image::parse_transport;

TEST_CASE("names of transports are taken apart") {
  auto name = parse_transport("docker://quay.io/a:1");
  CHECK(name.transport == "docker");
  CHECK(name.path == "quay.io/a:1");
  CHECK(parse_transport("localhost:5000/a").path == "localhost:5000/a");
  name = parse_transport("oci:/tmp/x:tag");
  CHECK(name.transport == "oci");
  CHECK(name.path == "/tmp/x");
  CHECK(name.reference == "tag");
  name = parse_transport("docker-archive:a.tar:host/b:1");
  CHECK(name.path == "a.tar");
  CHECK(name.reference == "host/b:1");
  name = parse_transport("dir:/a:b");
  CHECK(name.path == "/a:b");
  CHECK(name.reference.empty());
  CHECK_THROWS_AS(parse_transport("oci:"), UsageError);
  CHECK_THROWS_AS(parse_transport("containers-storage:x"), UsageError);
}
