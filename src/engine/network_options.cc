#include <arpa/inet.h>

#include <algorithm>
#include <cctype>

#include "base/error.h"
#include "base/text.h"
#include "engine/network.h"
#include "sys/netlink.h"

// The pure half of the network: texts of options in, values out; contents of /etc/hosts and /etc/resolv.conf.
namespace kelp::engine {

namespace {

using Kind = NetworkMode::Kind;

void slirp_option(NetworkMode& mode, const std::string& option) {
  const size_t equal = option.find('=');
  const std::string key = option.substr(0, equal);
  const std::string value = equal == std::string::npos ? "" : option.substr(equal + 1);
  const auto flag = [&] {
    const auto parsed = to_bool(value);
    if (!parsed) throw_usage("--network slirp4netns:{}: {} is not true or false", key, quoted(value));
    return *parsed;
  };
  if (key == "allow_host_loopback") {
    mode.allow_host_loopback = flag();
  } else if (key == "enable_ipv6") {
    mode.enable_ipv6 = flag();
  } else if (key == "mtu") {
    const auto number = to_int(value, 68, 65521);
    if (!number) throw_usage("--network slirp4netns:mtu: {} is not between 68 and 65521", quoted(value));
    mode.mtu = static_cast<unsigned>(*number);
  } else if (key == "cidr") {
    const auto parts = split(value, '/');
    const auto bits = parts.size() == 2 ? to_int(parts[1], 1, 25) : std::nullopt;
    if (!bits || !sys::is_ipv4(parts[0]))
      throw_usage("--network slirp4netns:cidr: {} is not an IPv4 network of at most 25 bits", quoted(value));
    mode.cidr = value;
  } else if (key == "port_handler") {
    if (value == "slirp4netns") return;
    UsageError error(fmt::format("--network slirp4netns:port_handler={} is not supported", value));
    error.with_hint("slirp4netns itself forwards the ports, which keeps the client's address; leave the option out");
    throw error;
  } else if (key == "outbound_addr") {
    mode.outbound_addr = value;
  } else if (key == "outbound_addr6") {
    mode.outbound_addr6 = value;
  } else {
    throw_usage("--network slirp4netns: unknown option {}", quoted(option));
  }
}

std::pair<std::uint16_t, std::uint16_t> port_range(std::string_view text, std::string_view whole) {
  const size_t dash = text.find('-');
  const auto first = to_int(text.substr(0, dash), 1, 65535);
  const auto last = dash == std::string_view::npos ? first : to_int(text.substr(dash + 1), 1, 65535);
  if (!first || !last || *last < *first)
    throw_usage("invalid port {} in --publish {}: a number or a range within 1-65535", quoted(text), quoted(whole));
  return {static_cast<std::uint16_t>(*first), static_cast<std::uint16_t>(*last)};
}

/// n-th address of the slirp network: .2 is the gateway (the host), .3 its resolver, .100 the container.
std::string address_in(const std::string& cidr, std::uint32_t host) {
  in_addr raw{};
  const auto parts = split(cidr, '/');
  ::inet_pton(AF_INET, parts.at(0).c_str(), &raw);
  const auto bits = static_cast<unsigned>(to_int(parts.at(1), 1, 32).value_or(24));
  const std::uint32_t mask = bits == 32 ? 0xffffffffU : ~(0xffffffffU >> bits);
  raw.s_addr = htonl((ntohl(raw.s_addr) & mask) + host);
  char text[INET_ADDRSTRLEN] = "";
  ::inet_ntop(AF_INET, &raw, text, sizeof text);
  return text;
}

}  // namespace

NetworkMode parse_network_mode(const store::Strings& values) {
  NetworkMode mode;
  if (values.empty()) return mode;
  if (values.size() > 1) throw_usage("--network given several times: only user-defined networks can be combined");
  const std::string& text = values.front();
  const size_t colon = text.find(':');
  const std::string kind = text.substr(0, colon);
  const std::string rest = colon == std::string::npos ? "" : text.substr(colon + 1);
  if (text == "default" || text.empty()) return mode;
  if (kind == "slirp4netns") {
    for (const std::string& option : split(rest, ',')) slirp_option(mode, option);
  } else if (text == "none") {
    mode.kind = Kind::none;
  } else if (text == "host") {
    mode.kind = Kind::host;
  } else if (text == "private") {
    mode.kind = Kind::slirp4netns;
  } else if (kind == "container" && !rest.empty()) {
    mode.kind = Kind::container;
    mode.argument = rest;
  } else if (kind == "ns" && !rest.empty()) {
    mode.kind = Kind::ns_path;
    mode.argument = rest;
  } else {
    UsageError error(fmt::format("unable to find network with name or ID {}: network not found", quoted(text)));
    error.with_hint("possible are slirp4netns[:OPTIONS], none, host, private, container:NAME and ns:PATH");
    throw error;
  }
  return mode;
}

std::vector<store::PortMapping> parse_publish(std::string_view text) {
  std::string_view rest = text;
  store::PortMapping base;
  if (const size_t slash = rest.rfind('/'); slash != std::string_view::npos) {
    base.protocol = to_lower(rest.substr(slash + 1));
    rest = rest.substr(0, slash);
    if (base.protocol != "tcp" && base.protocol != "udp") {
      if (base.protocol == "sctp")
        throw_usage("--publish {}: slirp4netns does not forward sctp, only tcp and udp", quoted(text));
      throw_usage("--publish {}: unknown protocol {}, tcp and udp are possible", quoted(text), quoted(base.protocol));
    }
  }
  if (starts_with(rest, "[")) {
    const size_t close = rest.find(']');
    if (close == std::string_view::npos || close + 1 >= rest.size() || rest[close + 1] != ':')
      throw_usage("--publish {}: an IPv6 address is written [address]:port:port", quoted(text));
    base.host_ip = std::string(rest.substr(1, close - 1));
    if (!sys::is_ipv6(base.host_ip)) throw_usage("--publish {}: {} is not an IPv6 address", quoted(text), base.host_ip);
    rest = rest.substr(close + 2);
    if (rest.find(':') == std::string_view::npos) throw_usage("--publish {}: port missing", quoted(text));
  }
  auto parts = split(rest, ':');
  if (parts.empty() || parts.size() > 3 || (parts.size() == 3 && !base.host_ip.empty()))
    throw_usage("--publish {}: not [[ip:][hostPort]:]containerPort[/protocol]", quoted(text));
  if (parts.size() == 3) {
    base.host_ip = parts.front();
    if (!base.host_ip.empty() && !sys::is_ipv4(base.host_ip))
      throw_usage("--publish {}: {} is not an IP address", quoted(text), quoted(base.host_ip));
    parts.erase(parts.begin());
  }
  const auto inside = port_range(parts.back(), text);
  std::vector<store::PortMapping> made;
  const bool host_given = parts.size() == 2 && !parts.front().empty();
  const auto outside = host_given ? port_range(parts.front(), text) : std::pair<std::uint16_t, std::uint16_t>(0, 0);
  const int count = inside.second - inside.first;
  if (host_given && outside.second - outside.first != count)
    throw_usage("--publish {}: host and container ranges have different lengths", quoted(text));
  for (int step = 0; step <= count; ++step) {
    store::PortMapping port = base;
    port.container_port = static_cast<std::uint16_t>(inside.first + step);
    port.host_port = host_given ? static_cast<std::uint16_t>(outside.first + step) : std::uint16_t{0};
    made.push_back(std::move(port));
  }
  return made;
}

namespace {

/// Options for /etc/hosts and /etc/resolv.conf that would have no effect.
void check_names(const store::ContainerConfig& config, const NetworkMode& mode) {
  const bool dns = !config.dns.empty() || !config.dns_search.empty() || !config.dns_option.empty();
  if (dns && mode.kind == Kind::none)
    throw_usage("--dns and --network none exclude each other: nothing can be asked for a name");
  if (mode.kind == Kind::container && (dns || !config.add_host.empty()))
    throw UsageError("--dns and --add-host exclude the network of another container: its names are shared")
        .with_hint("give the options to that container");
  if (config.no_hosts && !config.add_host.empty()) throw_usage("--no-hosts and --add-host exclude each other");
  if (config.dns.size() > 1 && std::count(config.dns.begin(), config.dns.end(), "none") > 0)
    throw_usage("--dns none excludes other name servers");
  if (config.dns_search.size() > 1 && std::count(config.dns_search.begin(), config.dns_search.end(), ".") > 0)
    throw_usage("--dns-search . excludes other domains");
  for (const std::string& domain : config.dns_search)
    for (const char c : domain)
      if (std::isalnum(static_cast<unsigned char>(c)) == 0 && std::string_view("._-").find(c) == std::string_view::npos)
        throw_usage("--dns-search {}: not a domain", quoted(domain));
}

}  // namespace

void check_network(const store::ContainerConfig& config, const NetworkMode& mode) {
  if (mode.kind == Kind::slirp4netns)
    for (const store::PortMapping& port : config.ports)
      if (sys::is_ipv6(port.host_ip))
        throw_usage("port [{}]:{}: slirp4netns cannot forward from an IPv6 address", port.host_ip, port.host_port);
  if (mode.kind != Kind::slirp4netns || !config.ip.empty() || !config.ip6.empty() || !config.mac_address.empty()) {
    if (!config.ip.empty() || !config.ip6.empty() || !config.mac_address.empty())
      throw_usage("--ip, --ip6 and --mac-address need a user-defined network");
  }
  if (!config.network_aliases.empty()) throw_usage("--network-alias needs a user-defined network");
  check_names(config, mode);
  for (const std::string& server : config.dns)
    if (server != "none" && !sys::is_ipv4(server) && !sys::is_ipv6(server))
      throw_usage("--dns {}: not an IP address", quoted(server));
  for (const std::string& entry : config.add_host) {
    const size_t colon = entry.find(':');
    const std::string address = colon == std::string::npos ? "" : entry.substr(colon + 1);
    if (colon == 0 || (address != "host-gateway" && !sys::is_ipv4(address) && !sys::is_ipv6(address)))
      throw_usage("--add-host {}: not NAME:ADDRESS", quoted(entry));
  }
}

void place_in_cidr(NetworkPlan& plan) {
  plan.gateway = address_in(plan.mode.cidr, 2);
  plan.dns = address_in(plan.mode.cidr, 3);
  plan.address = address_in(plan.mode.cidr, 100);
  plan.host_address = plan.gateway;
}

std::string make_hosts(const store::ContainerConfig& config, const std::string& hostname, const std::string& name,
                       const NetworkPlan& plan, std::string_view host_hosts) {
  const bool slirp = plan.mode.kind == Kind::slirp4netns;
  const bool host = plan.mode.kind == Kind::host;
  std::string text;
  std::vector<std::string> taken = {"localhost", hostname, name};
  for (const std::string& entry : config.add_host) {
    const size_t colon = entry.find(':');
    std::string address = entry.substr(colon + 1);
    if (address == "host-gateway") {
      if (!slirp && !host) throw_usage("--add-host {}: there is no way to the host in this network", quoted(entry));
      address = host ? "127.0.0.1" : plan.host_address;
    }
    for (const std::string& alias : split(entry.substr(0, colon), ';')) {
      text += address + "\t" + alias + "\n";
      taken.push_back(alias);
    }
  }
  // The host's own lines, but for names that mean somebody else in here.
  for (const std::string& line : split(host_hosts, '\n')) {
    std::string spaced = line.substr(0, line.find('#'));
    std::replace(spaced.begin(), spaced.end(), '\t', ' ');
    std::string kept;
    std::string address;
    for (const std::string& word : split(spaced, ' ')) {
      if (word.empty()) continue;
      if (address.empty()) {
        address = word;
        continue;
      }
      const bool ours = std::count(taken.begin(), taken.end(), word) > 0 || word == "host.containers.internal" ||
                        word == "host.docker.internal";
      if (!ours) kept += (kept.empty() ? "" : " ") + word;
    }
    // 127.0.1.1 of Debian is the host's name: inside it would lead to the container itself.
    if (!kept.empty() && !(starts_with(address, "127.") && !host)) text += address + "\t" + kept + "\n";
  }
  text += "127.0.0.1\tlocalhost\n";
  text += "::1\tlocalhost\n";
  const auto named = [&](std::string_view alias) { return std::count(taken.begin() + 3, taken.end(), alias) > 0; };
  if (slirp || host) {
    std::string names;
    for (const char* alias : {"host.containers.internal", "host.docker.internal"})
      if (!named(alias)) names += (names.empty() ? "" : " ") + std::string(alias);
    if (!names.empty()) text += (host ? "127.0.0.1" : plan.host_address) + "\t" + names + "\n";
  }
  if (!host)
    text += (slirp ? plan.address : "127.0.0.1") + "\t" + hostname + (name == hostname ? "" : " " + name) + "\n";
  return text;
}

std::string make_resolv_conf(const store::ContainerConfig& config, const NetworkPlan& plan,
                             std::string_view host_resolv_conf) {
  const bool slirp = plan.mode.kind == Kind::slirp4netns;
  std::string search;
  std::string options;
  store::Strings servers;
  for (const std::string& line : split(host_resolv_conf, '\n')) {
    std::string spaced = line;
    std::replace(spaced.begin(), spaced.end(), '\t', ' ');
    const std::string_view text = trim(spaced);
    const size_t space = text.find(' ');
    if (space == std::string_view::npos) continue;
    const std::string_view value = trim(text.substr(space));
    if (starts_with(text, "nameserver ")) {
      // A resolver on the host's loopback or a link-local zone is out of reach: slirp's own forwards to it.
      const bool reachable = plan.mode.kind == Kind::host || (!starts_with(value, "127.") && value != "::1" &&
                                                              value.find('%') == std::string_view::npos);
      if (reachable) servers.emplace_back(value);
    } else if (starts_with(text, "search ") || starts_with(text, "domain ")) {
      search = value;
    } else if (starts_with(text, "options ")) {
      options = value;
    }
  }
  if (slirp) servers.insert(servers.begin(), plan.dns);  // follows the host's resolver, also when that changes
  if (!config.dns.empty()) servers = config.dns;
  if (!config.dns_search.empty()) search = config.dns_search == store::Strings{"."} ? "" : join(config.dns_search, " ");
  if (!config.dns_option.empty()) options = join(config.dns_option, " ");
  std::string text;
  if (!search.empty()) text += "search " + search + "\n";
  for (const std::string& server : servers) text += "nameserver " + server + "\n";
  if (!options.empty()) text += "options " + options + "\n";
  return text;
}

std::string default_hostname(const store::ContainerRecord& record) {
  return record.config.hostname.value_or(record.id.substr(0, 12));
}

}  // namespace kelp::engine
