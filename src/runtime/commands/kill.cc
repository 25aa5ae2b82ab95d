#include <array>

#include "base/error.h"
#include "runtime/commands/commands.h"
#include "runtime/container.h"
#include "runtime/processes.h"
#include "sys/clone.h"
#include "sys/signals.h"

namespace kelp::runtime {
namespace {

constexpr std::array kOptions = {
    OptionSpec{"all", 'a', nullptr, "send the signal to all processes of the container"},
};

int kill(const Call& call) {
  const int signal = sys::signal_from_name(call.words.size() > 1 ? call.words[1] : "SIGTERM");
  const Container container = Container::open(call.global.root, call.words[0]);
  const Record record = container.require();
  if (call.options.flag("all")) {
    signal_all(container, record, signal);
    return 0;
  }
  const Fd first = container.pidfd(record);
  if (!first) throw_error("container not running");
  sys::pidfd_send_signal(first.get(), signal);
  return 0;
}

}  // namespace

const Command kKill = {"kill", "ID [SIGNAL]", "send a signal (default SIGTERM) to the first process", kOptions, kill, 1,
                       2};

}  // namespace kelp::runtime
