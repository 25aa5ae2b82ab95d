#include <algorithm>
#include <memory>
#include <tuple>

#include "base/error.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/container_select.h"
#include "cli/output.h"
#include "store/containers.h"

namespace kelp::cli {
namespace {

/// As podman lists them: by protocol, then by port inside.
std::vector<store::PortMapping> sorted_ports(const store::ContainerRecord& record) {
  std::vector<store::PortMapping> ports = record.ports;
  std::stable_sort(ports.begin(), ports.end(), [](const auto& left, const auto& right) {
    return std::tie(left.protocol, left.container_port) < std::tie(right.protocol, right.container_port);
  });
  return ports;
}

std::string host_side(const store::PortMapping& port) {
  return fmt::format("{}:{}", port.host_ip.empty() ? "0.0.0.0" : port.host_ip, port.host_port);
}

/// One container: all its ports, or the host's side of the one that is asked for ("80", "80/udp"). Nothing where it
/// does not run: its ports are not there.
int print_ports(Invocation& invocation, const store::ContainerRecord& record, const std::string& wanted) {
  std::string out;
  const size_t slash = wanted.find('/');
  const std::string protocol = slash == std::string::npos ? "tcp" : wanted.substr(slash + 1);
  const auto number = to_int(wanted.substr(0, slash), 1, 65535);
  if (!wanted.empty() && !number) throw_usage("{} is not a port", quoted(wanted));
  if (store::status(invocation.context.layout, record).status != store::Status::running) return 0;
  for (const auto& port : sorted_ports(record)) {
    if (wanted.empty()) {
      out += fmt::format("{}/{} -> {}\n", port.container_port, port.protocol, host_side(port));
    } else if (port.container_port == *number && port.protocol == protocol) {
      out += host_side(port) + "\n";
    }
  }
  if (out.empty() && !wanted.empty()) {
    throw_error("no published port {} in container {}", quoted(wanted), record.name);
  }
  print(out);
  return 0;
}

int print_all(Invocation& invocation) {
  std::string out;
  for (const auto& record : store::list(invocation.context.layout)) {
    if (store::status(invocation.context.layout, record).status != store::Status::running) continue;
    for (const auto& port : sorted_ports(record)) {
      out += fmt::format("{}\t{}/{} -> {}\n", record.id.substr(0, 12), port.container_port, port.protocol,
                         host_side(port));
    }
  }
  print(out);
  return 0;
}

}  // namespace

Action define_port(OptionSet& options) {
  struct Values {
    bool all = false, latest = false;
  };
  auto values = std::make_shared<Values>();
  options.arguments("CONTAINER [PORT[/PROTO]]", 0, 2, Complete::running);
  options.flag("all,a", values->all, "of all running containers");
  add_latest(options, values->latest);
  return [values](Invocation& invocation) {
    if (values->all) {
      if (values->latest || !invocation.arguments.empty())
        throw_usage("--all and names or --latest exclude each other");
      return print_all(invocation);
    }
    const auto record = take_container(invocation, values->latest);
    return print_ports(invocation, record, invocation.arguments.empty() ? "" : invocation.arguments.front());
  };
}

}  // namespace kelp::cli
