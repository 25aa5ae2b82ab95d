#include <doctest/doctest.h>

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "base/error.h"
#include "sys/clone.h"
#include "sys/link.h"
#include "sys/namespaces.h"

using namespace kelp;

TEST_CASE("a child's result is its exit code, a signal is 128 + n") {
  CHECK(sys::clone_child(0, [] { return 7; }).wait() == 7);
  sys::Child sleeper = sys::clone_child(0, [] {
    ::pause();
    return 0;
  });
  CHECK(sys::pidfd_alive(sleeper.pidfd.get()));
  CHECK(!sleeper.wait_for(0));
  sys::pidfd_send_signal(sleeper.pidfd.get(), SIGTERM);
  CHECK(sleeper.wait() == 128 + SIGTERM);
  CHECK(!sleeper.valid());
}

TEST_CASE("an unowned child does not outlive its owner") {
  Fd watch;
  {
    const sys::Child child = sys::clone_child(0, [] {
      ::pause();
      return 0;
    });
    watch = sys::pidfd_open(child.pid);
  }
  CHECK(!sys::pidfd_alive(watch.get()));
}

TEST_CASE("frames keep their bounds and carry descriptors; a closed end is end-of-file") {
  auto [left, right] = sys::Link::pair();
  left.send("one");
  {
    const Fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    left.send(std::string(50'000, 'x'), {null.get(), null.get()});
  }
  CHECK(right.receive()->data == "one");
  const auto frame = right.receive();
  CHECK(frame->data.size() == 50'000);
  REQUIRE(frame->fds.size() == 2);
  CHECK(::fcntl(frame->fds[0].get(), F_GETFD) == FD_CLOEXEC);
  CHECK_THROWS_AS(right.receive_within(0), SysError);
  left.close();
  CHECK(!right.receive());
  CHECK_THROWS_AS(right.send("x"), SysError);
}

TEST_CASE("namespaces are known by both names") {
  CHECK(sys::namespace_kind("network")->flag == CLONE_NEWNET);
  CHECK(sys::namespace_kind("net")->flag == CLONE_NEWNET);
  CHECK(!sys::namespace_kind("netz"));
  CHECK(sys::namespace_kinds().size() == 8);
}
