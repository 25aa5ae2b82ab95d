#pragma once

#include <string>
#include <utility>
#include <vector>

#include "engine/context.h"
#include "store/container_record.h"

namespace kelp::engine {

/// A --network value taken apart. source: podman-run(1), --network
struct NetworkMode {
  enum class Kind { slirp4netns, none, host, private_, container, ns_path };
  Kind kind = Kind::slirp4netns;
  std::string argument;  ///< container name or id, namespace path
  // slirp4netns:…
  bool allow_host_loopback = false;
  bool enable_ipv6 = false;
  unsigned mtu = 65520;
  std::string cidr = "10.0.2.0/24";
  std::string outbound_addr, outbound_addr6;  ///< interface name or address
};
/// throws UsageError: unknown mode or option, with what is possible
NetworkMode parse_network_mode(const store::Strings& values);

/// What one start needs of the network; resolved against the host as it is.
struct NetworkPlan {
  NetworkMode mode;
  std::string netns_path;      ///< to join (container:, ns:), "" = new or the host's
  std::string join_container;  ///< id of the container whose network is shared
  bool new_namespace = true;   ///< false for host and joined ones
  /// slirp4netns and its options; the monitor adds -e FD, -r FD, --api-socket and `--netns-type=path PATH tap0`.
  /// Empty: no slirp4netns.
  std::vector<std::string> slirp_argv;
  /// Ready JSON requests for the API socket, each with the port in words for messages ("127.0.0.1:8080/tcp").
  std::vector<std::pair<std::string, std::string>> hostfwd;
  std::string gateway = "10.0.2.2", dns = "10.0.2.3", address = "10.0.2.100";
  /// How the container reaches the host: the gateway when loopback is let through, else the host's own address.
  std::string host_address = "10.0.2.2";
  std::string hosts, resolv_conf;  ///< contents of the files; "" = none is mounted
  store::Strings warnings;
};

/// "[ip:][host]:container[/proto]" with ranges. throws UsageError naming the text
std::vector<store::PortMapping> parse_publish(std::string_view text);

/// Checks what was asked against the mode (ports under host, none, container:; IPv6 binds; …). No host port is touched.
void check_network(const store::ContainerConfig& config, const NetworkMode& mode);
/// Fills in host ports that were left open, and probes the rest: throws Error "port 80 cannot be bound: …" with hint.
/// image_ports: exposed by the image ("80/tcp"), for --publish-all.
std::vector<store::PortMapping> resolve_ports(const store::ContainerConfig& config, const NetworkMode& mode,
                                              const store::Strings& image_ports);
/// At each start: the ports are probed again, hosts and resolv.conf follow the host. hosts_of_image: /etc/hosts of the
/// image's root file system is not used; base is the host's as containers.conf's default has it.
NetworkPlan make_network_plan(Context& context, const store::ContainerRecord& record);

/// The parts of it that are pure text.
std::string make_hosts(const store::ContainerConfig& config, const std::string& hostname, const std::string& name,
                       const NetworkPlan& plan, std::string_view host_hosts);
std::string make_resolv_conf(const store::ContainerConfig& config, const NetworkPlan& plan,
                             std::string_view host_resolv_conf);

/// 64-hex ids take their first 12 digits as host name.
std::string default_hostname(const store::ContainerRecord& record);

}  // namespace kelp::engine
