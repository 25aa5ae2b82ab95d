#include "engine/attach.h"

#include "base/error.h"
#include "engine/context.h"
#include "engine/follow.h"
#include "engine/monitor_client.h"
#include "monitor/protocol.h"
#include "store/containers.h"
#include "sys/signals.h"

namespace kelp::engine {

int attach_container(Context& context, const store::ContainerRecord& record, const AttachOptions& options) {
  store::refuse_newer_state(context.layout, record.id);
  const auto status = store::status(context.layout, record);
  if (status.status != store::Status::running)
    throw_usage("you can only attach to running containers ({} is {})", record.name, store::status_name(status.status));
  FollowOptions streams;
  streams.in = options.stdin_open && record.config.interactive;
  streams.out = streams.err = true;
  streams.tty = record.config.tty;
  streams.sig_proxy = options.sig_proxy;
  streams.detach_keys = options.detach_keys;
  parse_detach_keys(streams.detach_keys);

  const sys::SignalMask mask(followed_signals());
  const sys::SignalFd signals(followed_signals());
  const auto link = connect_monitor(context, record.id);
  if (!link) throw_error("the monitor of container {} cannot be reached", record.name);
  monitor::send_frame(link->socket.get(),
                      {.type = monitor::Msg::attach,
                       .value = (streams.in ? monitor::kStreamIn : 0) | monitor::kStreamOut | monitor::kStreamErr},
                      {}, {}, true);
  const FollowResult result = follow(link->socket.get(), status.run ? status.run->pid : 0, streams, signals);
  if (result.lost) throw_error("the monitor of container {} was killed, and the container with it", record.name);
  return result.detached ? 0 : result.code;
}

}  // namespace kelp::engine
