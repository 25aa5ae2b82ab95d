#include "engine/secrets.h"

#include <sys/stat.h>

#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "engine/context.h"
#include "store/secrets.h"
#include "sys/lock.h"
#include "sys/safe_path.h"

namespace kelp::engine {

store::SecretRequest parse_secret_option(std::string_view text) {
  auto parts = split(text, ',');
  // The name stands first and bare, or anywhere as source=NAME.
  for (size_t i = 0; i < parts.size(); ++i)
    if (starts_with(parts[i], "source=")) {
      std::rotate(parts.begin(), parts.begin() + static_cast<std::ptrdiff_t>(i),
                  parts.begin() + static_cast<std::ptrdiff_t>(i) + 1);
      parts.front().erase(0, 7);
    }
  if (parts.empty() || parts.front().empty() || parts.front().find('=') != std::string::npos)
    throw_usage("--secret {}: the name is missing", kelp::quoted(text));
  store::SecretRequest request;
  request.name = parts.front();
  bool file_option = false;
  for (size_t i = 1; i < parts.size(); ++i) {
    const size_t equals = parts[i].find('=');
    const std::string key = parts[i].substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : parts[i].substr(equals + 1);
    const auto number = [&]() -> unsigned {
      const auto parsed = to_int(value, 0, 4294967294);
      if (!parsed) throw_usage("--secret {}: {} is not a number: {}", kelp::quoted(text), key, kelp::quoted(value));
      file_option = true;
      return static_cast<unsigned>(*parsed);
    };
    if (key == "type") {
      if (value != "mount" && value != "env") throw_usage("--secret {}: type is mount or env", kelp::quoted(text));
      request.env = value == "env";
    } else if (key == "target") {
      request.target = value;
    } else if (key == "uid") {
      request.uid = number();
    } else if (key == "gid") {
      request.gid = number();
    } else if (key == "mode") {
      const auto mode = to_octal(value);
      if (!mode) throw_usage("--secret {}: mode {} is not octal", kelp::quoted(text), kelp::quoted(value));
      request.mode = *mode;
      file_option = true;
    } else {
      throw_usage("--secret {}: unknown option {}: type, target, uid, gid and mode are possible", kelp::quoted(text),
                  kelp::quoted(key));
    }
  }
  if (request.env) {
    if (file_option) throw_usage("--secret {}: uid, gid and mode are for type=mount", kelp::quoted(text));
    if (request.target.empty()) request.target = request.name;
    if (request.target.find('=') != std::string::npos)
      throw_usage("--secret {}: {} cannot be the name of a variable", kelp::quoted(text), kelp::quoted(request.target));
  } else {
    if (request.target.empty()) request.target = request.name;
    if (request.target.front() != '/') request.target = "/run/secrets/" + request.target;
    request.target = sys::clean_path(request.target);
  }
  return request;
}

void resolve_secrets(Context& context, store::ContainerConfig& config) {
  for (auto& request : config.secrets) {
    const auto secret = store::get_secret(context.layout, request.name);
    // By id it was, perhaps: the file's name in the container stays what was typed.
    request.name = secret.name;
    request.id = secret.id;
  }
}

void copy_secrets(Context& context, const store::ContainerConfig& config, const std::string& directory) {
  if (config.secrets.empty()) return;
  const std::string target = directory + "/secrets";
  if (::mkdir(target.c_str(), 0700) < 0) throw_errno("make {}", target);
  for (const auto& request : config.secrets) {
    const auto secret = store::get_secret(context.layout, request.name);
    sys::replace_file(target + "/" + secret.name, store::read_secret(context.layout, secret), 0600);
  }
}

}  // namespace kelp::engine
