#include "engine/network.h"

#include <sys/socket.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "engine/host.h"
#include "store/containers.h"
#include "sys/lock.h"
#include "sys/netlink.h"

namespace kelp::engine {

void place_in_cidr(NetworkPlan& plan);  // network_options.cc

namespace {

using Kind = NetworkMode::Kind;

std::string words(const store::PortMapping& port) {
  return fmt::format("{}:{}/{}", port.host_ip.empty() ? "0.0.0.0" : port.host_ip, port.host_port, port.protocol);
}

void probe(const store::PortMapping& port) {
  switch (sys::probe_bind(port.host_ip, port.host_port, port.protocol == "udp")) {
    case sys::BindResult::ok:
      return;
    case sys::BindResult::taken: {
      Error error(fmt::format("port {} cannot be bound: address already in use", words(port)),
                  kExitCannotInvoke);  // as podman, whose forwarder starts with the container
      error.with_hint(fmt::format("ss -lnp 'sport = {}' shows who has it", port.host_port));
      throw error;
    }
    case sys::BindResult::forbidden: {
      Error error(fmt::format("port {} cannot be bound: permission denied, ports below {} are reserved for root",
                              words(port), sys::unprivileged_port_start()),
                  kExitCannotInvoke);
      error.with_hint(fmt::format("choose another host port, or: sudo sysctl net.ipv4.ip_unprivileged_port_start={}",
                                  port.host_port));
      throw error;
    }
    case sys::BindResult::no_such_address:
      throw Error(fmt::format("port {} cannot be bound: no interface of this host has the address {}", words(port),
                              port.host_ip),
                  kExitCannotInvoke);
  }
}

/// slirp4netns forwards one port per request; the guest address is given because it need not be the default.
std::string hostfwd_request(const store::PortMapping& port, const std::string& guest) {
  return fmt::format(
      R"({{"execute":"add_hostfwd","arguments":{{"proto":"{}","host_addr":"{}","host_port":{},"guest_addr":"{}","guest_port":{}}}}})",
      port.protocol, port.host_ip.empty() ? "0.0.0.0" : port.host_ip, port.host_port, guest, port.container_port);
}

store::Strings slirp_command(Context& context, const NetworkMode& mode) {
  const std::string& program = context.host().slirp4netns.get().path;
  if (program.empty()) {
    Error error("the default network needs slirp4netns, which was not found in PATH");
    error.with_hint("install the package slirp4netns, or run with --network none or host (`kelp doctor` tells more)");
    throw error;
  }
  if (!context.host().tun.get()) {
    Error error("the default network needs /dev/net/tun, which cannot be opened here");
    error.with_hint(fmt::format("{}; or --network none, or host (for good: `network.default = \"host\"` in kelp.toml)",
                                is_nested() ? "start the outer container with --device /dev/net/tun"
                                            : "sudo modprobe tun && sudo chmod 0666 /dev/net/tun"));
    throw error;
  }
  store::Strings argv = {program, "--configure", fmt::format("--mtu={}", mode.mtu), "--enable-sandbox",
                         "--enable-seccomp"};
  if (!mode.allow_host_loopback) argv.emplace_back("--disable-host-loopback");
  if (mode.enable_ipv6) argv.emplace_back("--enable-ipv6");
  if (mode.cidr != NetworkMode{}.cidr) argv.push_back("--cidr=" + mode.cidr);
  if (!mode.outbound_addr.empty()) argv.push_back("--outbound-addr=" + mode.outbound_addr);
  if (!mode.outbound_addr6.empty()) argv.push_back("--outbound-addr6=" + mode.outbound_addr6);
  return argv;
}

std::string text_of(const char* path) { return sys::read_small_file(path).value_or(""); }

}  // namespace

std::vector<store::PortMapping> resolve_ports(const store::ContainerConfig& config, const NetworkMode& mode,
                                              const store::Strings& image_ports) {
  if (mode.kind != Kind::slirp4netns && !config.ports.empty())
    log::warn("no port is published: only a network of the container's own has ports to forward to");
  std::vector<store::PortMapping> wanted;
  for (const store::PortMapping& port : config.ports) {
    const auto same = [&port](const store::PortMapping& other) {
      return port.host_port != 0 && words(other) == words(port) && other.container_port == port.container_port;
    };
    if (std::none_of(wanted.begin(), wanted.end(), same)) wanted.push_back(port);
  }
  if (config.publish_all) {
    std::set<std::string> exposed(image_ports.begin(), image_ports.end());
    exposed.insert(config.expose.begin(), config.expose.end());
    for (const std::string& text : exposed)
      for (store::PortMapping port : parse_publish(text)) {
        const auto same = [&](const store::PortMapping& other) {
          return other.container_port == port.container_port && other.protocol == port.protocol;
        };
        if (std::none_of(wanted.begin(), wanted.end(), same)) wanted.push_back(std::move(port));
      }
  }
  if (mode.kind != Kind::slirp4netns) return {};  // host: the container binds itself; others: nowhere to forward to
  std::set<std::string> seen;
  for (store::PortMapping& port : wanted) {
    if (port.host_port == 0) {
      // Two open ports must not be given the same number: the probe lets go of it at once.
      for (int attempt = 0; attempt < 64; ++attempt) {
        port.host_port = sys::free_port(port.host_ip, port.protocol == "udp");
        if (!seen.contains(words(port))) break;
      }
    } else {
      probe(port);
    }
    if (!seen.insert(words(port)).second) throw_usage("port {} is published twice", words(port));
  }
  return wanted;
}

NetworkPlan make_network_plan(Context& context, const store::ContainerRecord& record) {
  NetworkPlan plan;
  plan.mode = parse_network_mode(record.config.networks);
  const store::ContainerConfig& config = record.config;
  std::string hostname = default_hostname(record);
  switch (plan.mode.kind) {
    case Kind::slirp4netns:
      place_in_cidr(plan);
      if (!plan.mode.allow_host_loopback)
        for (const sys::HostAddress& address : sys::host_addresses())
          if (!address.loopback && address.family == AF_INET) {
            plan.host_address = address.address;
            break;
          }
      plan.slirp_argv = slirp_command(context, plan.mode);
      for (const store::PortMapping& port : record.ports) {
        probe(port);
        plan.hostfwd.emplace_back(hostfwd_request(port, plan.address), words(port));
      }
      break;
    case Kind::none:
    case Kind::private_:
      break;
    case Kind::host:
      plan.new_namespace = false;
      if (!config.hostname) hostname = context.host().host_name.get();
      break;
    case Kind::container: {
      plan.new_namespace = false;
      const store::ContainerRecord other = store::get(context.layout, plan.mode.argument);
      const store::ContainerStatus status = store::status(context.layout, other);
      if (!status.run || status.run->pid == 0 || status.status == store::Status::exited)
        throw_error("cannot join the network of container {}: it is not running", other.name);
      plan.netns_path = fmt::format("/proc/{}/ns/net", status.run->pid);
      plan.join_container = other.id;
      // One network, one set of names: the files of the owner of the network are shared, as in podman.
      const std::string directory = context.layout.container(other.id);
      plan.hosts = config.no_hosts ? "" : sys::read_small_file(directory + "/hosts").value_or("");
      plan.resolv_conf = sys::read_small_file(directory + "/resolv.conf").value_or("");
      return plan;
    }
    case Kind::ns_path:
      plan.new_namespace = false;
      plan.netns_path = plan.mode.argument;
      break;
  }
  // --hosts-file names what stands in the place of the host's own file.
  const std::string host_hosts = config.hosts_file.empty() ? text_of("/etc/hosts") : "";
  if (!config.no_hosts) plan.hosts = make_hosts(config, hostname, record.name, plan, host_hosts);
  const bool no_dns = config.dns == store::Strings{"none"};
  if (!no_dns && (plan.mode.kind != Kind::none || !config.dns.empty()))
    plan.resolv_conf = make_resolv_conf(config, plan, text_of("/etc/resolv.conf"));
  return plan;
}

}  // namespace kelp::engine
