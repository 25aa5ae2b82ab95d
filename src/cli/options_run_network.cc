#include "base/error.h"
#include "base/text.h"
#include "cli/options_run.h"
#include "engine/network.h"

namespace kelp::cli {

void add_network_options(OptionSet& options, RunOptions& values) {
  auto& config = values.config;
  options.group("Network");
  options
      .list("network", config.networks, "MODE",
            "slirp4netns[:OPTION,...], host, none, private, container:NAME, ns:PATH")
      .also("net")
      .complete(Complete::network)
      .shows("slirp4netns");
  options.csv(
      "publish,p",
      [&config](const std::string& text) {
        for (auto& port : engine::parse_publish(text)) config.ports.push_back(std::move(port));
      },
      "[[IP:]HOST:]PORT[/PROTO]", "publish a port of the container; ranges are possible");
  options.flag("publish-all,P", config.publish_all, "publish all exposed ports on free ports of the host");
  options.csv(
      "expose",
      [&config](const std::string& text) {
        for (auto& port : parse_expose(text)) config.expose.push_back(std::move(port));
      },
      "PORT[/PROTO]", "say that the container listens there");
  options.csv(
      "add-host",
      [&config](const std::string& text) {
        check_add_host(text);
        config.add_host.push_back(text);
      },
      "NAME:ADDRESS", "line for /etc/hosts; host-gateway is the host's address");
  options.csv("dns", config.dns, "ADDRESS", "name server; none: /etc/resolv.conf of the image");
  options.csv("dns-search", config.dns_search, "DOMAIN", "search domain; \".\": none");
  options.csv("dns-option", config.dns_option, "OPTION", "option for the resolver").also("dns-opt");
  options.flag("no-hostname", config.no_hostname, "leave /etc/hostname as it is in the image");
  options
      .custom(
          "hosts-file", Kind::text,
          [&config](const std::string& text) {
            if (text.empty() || (text != "none" && text != "image" && text.front() != '/'))
              throw_usage("--hosts-file {}: none, image, or the absolute path of a file", kelp::quoted(text));
            config.hosts_file = text;
          },
          "FILE", "what /etc/hosts begins with: none, image, or a file")
      .shows("none")
      .complete(Complete::file);
  options.flag("no-hosts", config.no_hosts, "leave /etc/hosts as it is in the image");
}

}  // namespace kelp::cli
