#include "sys/event_loop.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <string>

using kelp::sys::EventLoop;
using namespace std::chrono_literals;

TEST_CASE("events, timers and changes from inside handlers") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  EventLoop loop;
  std::string seen;
  int watch = 0;
  watch = loop.watch(ends[0], POLLIN, [&](short) {
    char c = 0;
    if (::read(ends[0], &c, 1) == 1) seen += c;
    if (c == 'b') loop.forget(watch);
  });
  loop.after(5ms, [&] { CHECK(::write(ends[1], "a", 1) == 1); });
  loop.after(10ms, [&] { CHECK(::write(ends[1], "bc", 2) == 2); });
  const int cancelled = loop.after(15ms, [&] { seen += 'X'; });
  loop.cancel(cancelled);
  loop.after(30ms, [&] { loop.stop(); });
  loop.run();
  CHECK(seen == "ab");
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_CASE("a suspended watch does not see its hang-up") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  EventLoop loop;
  int calls = 0;
  const int watch = loop.watch(ends[0], POLLIN, [&](short) { ++calls; });
  ::close(ends[1]);
  loop.change(watch, -1);
  CHECK(!loop.run_once(5ms));
  loop.change(watch, POLLIN);
  CHECK(loop.run_once(5ms));
  CHECK(calls == 1);
  ::close(ends[0]);
}
