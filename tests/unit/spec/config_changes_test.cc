#include "spec/config_changes.h"

#include <doctest/doctest.h>

#include "base/error.h"

using namespace kelp::spec;

TEST_CASE("changes as commit and import take them") {
  ImageRunConfig config;
  config.env = {"PATH=/bin", "A=old"};
  for (const char* change :
       {R"(CMD ["a", "b c"])", "ENTRYPOINT=/run me", "ENV A=1 B=\"two words\" C=x\\ y", "ENV D many words",
        "EXPOSE 80 443/udp", "EXPOSE 8000-8002", "LABEL a=b", "ONBUILD RUN x", "STOPSIGNAL SIGQUIT", "user 1:2",
        "VOLUME /v /w", R"(VOLUME ["/x"])", "WORKDIR /a", "WORKDIR b"}) {
    CAPTURE(change);
    apply_change(config, change);
  }
  CHECK(config.cmd == Strings{"a", "b c"});
  CHECK(config.entrypoint == Strings{"/bin/sh", "-c", "/run me"});
  CHECK(config.env == Strings{"PATH=/bin", "A=1", "B=two words", "C=x y", "D=many words"});
  CHECK(config.exposed_ports == Strings{"443/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp"});
  CHECK(config.labels.at("a") == "b");
  CHECK(config.on_build == Strings{"RUN x"});
  CHECK(config.user == "1:2");
  CHECK(config.volumes == Strings{"/v", "/w", "/x"});
  CHECK(config.working_dir == "/a/b");
}

TEST_CASE("bad changes are refused") {
  for (const char* change : {"", "CMD", "RUN x", "ENV", "ENV A", "ENV =x", "EXPOSE 0", "EXPOSE 80/foo", "CMD [1]",
                             "CMD [", "LABEL a=\"b", "EXPOSE 9-8"}) {
    CAPTURE(change);
    ImageRunConfig config;
    CHECK_THROWS_AS(apply_change(config, change), kelp::UsageError);
  }
}
