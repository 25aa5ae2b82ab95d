#include "sys/signals.h"

#include <doctest/doctest.h>

#include "base/error.h"

using namespace kelp::sys;

TEST_CASE("signal names") {
  CHECK(signal_from_name("SIGTERM") == SIGTERM);
  CHECK(signal_from_name("term") == SIGTERM);
  CHECK(signal_from_name("15") == SIGTERM);
  CHECK(signal_from_name("SIGRTMIN+3") == 37);
  CHECK(signal_from_name("RTMAX-1") == 63);
  CHECK(signal_from_name("SIGIOT") == SIGABRT);
  for (const char* bad : {"", "0", "65", "SIG", "NOPE", "RTMIN+31", "-9", "9x"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(signal_from_name(bad), kelp::UsageError);
  }
}

TEST_CASE("every signal's name leads back to it") {
  for (int signal = 1; signal <= 64; ++signal) {
    if (signal == 32 || signal == 33) continue;  // libc's own
    CAPTURE(signal);
    CHECK(find_signal(signal_name(signal)) == signal);
  }
}

TEST_CASE("a blocked signal is read later") {
  SignalMask mask({SIGUSR1});
  ::raise(SIGUSR1);
  SignalFd fd({SIGUSR1});
  CHECK(fd.next() == SIGUSR1);
  CHECK(!fd.next());
}
