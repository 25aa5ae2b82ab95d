#include "engine/settings.h"

#include <cstdlib>

#include "base/error.h"
#include "base/text.h"
#include "base/toml.h"
#include "engine/network.h"
#include "sys/lock.h"

namespace kelp::engine {
namespace {

std::string settings_path() {
  const char* config = std::getenv("XDG_CONFIG_HOME");
  if (config != nullptr && *config == '/') return std::string(config) + "/kelp/kelp.toml";
  const char* home = std::getenv("HOME");
  return home != nullptr && *home == '/' ? std::string(home) + "/.config/kelp/kelp.toml" : "";
}

[[noreturn]] void throw_at(const std::string& path, const toml::node& node, const std::string& problem) {
  throw_usage("{}:{}: {}", path, node.source().begin.line, problem);
}

Settings read(const toml::table& top, const std::string& path) {
  Settings settings;
  for (const auto& [name, node] : top) {
    const toml::table* table = node.as_table();
    if (name.str() != "network" || table == nullptr)
      throw_at(path, node, fmt::format("unknown setting {} (there is: [network])", quoted(name.str())));
    for (const auto& [key, value] : *table) {
      const auto text = value.value_exact<std::string>();
      if (key.str() != "default")
        throw_at(path, value, fmt::format("unknown setting network.{}", printable(key.str())));
      if (!text) throw_at(path, value, "network.default is a string");
      settings.networks = {*text};
      try {
        parse_network_mode(settings.networks);
      } catch (const Error& error) {
        throw_at(path, value, error.message());
      }
    }
  }
  return settings;
}

}  // namespace

Settings load_settings(const store::Strings& modules) {
  Settings settings;
  const auto take = [&](const std::string& path, const std::string& text) {
    try {
      Settings found = read(toml::parse(text, path), path);
      if (!found.networks.empty()) settings.networks = std::move(found.networks);
    } catch (const toml::parse_error& error) {
      throw_usage("{}:{}: {}", path, error.source().begin.line, printable(error.description()));
    }
  };
  const std::string path = settings_path();
  if (const auto text = path.empty() ? std::nullopt : sys::read_small_file(path)) take(path, *text);
  for (const auto& module : modules) {
    const auto text = sys::read_small_file(module);
    if (!text) throw_usage("--module: there is no file {}", quoted(module));
    take(module, *text);
  }
  return settings;
}

}  // namespace kelp::engine
