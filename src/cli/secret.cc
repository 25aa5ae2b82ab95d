#include "store/secrets.h"

#include <unistd.h>

#include <cstdlib>
#include <memory>

#include <nlohmann/json.hpp>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/output.h"
#include "engine/events.h"
#include "sys/lock.h"

namespace kelp::cli {
namespace {

struct CreateCommand {
  store::SecretCreation request;
  std::string driver = "file";
  bool env = false;
};
struct ListCommand {
  bool no_heading = false, quiet = false;
  Strings filters;
  std::string format;
};
struct InspectCommand {
  std::string format;
  bool pretty = false, show = false;
};
struct RmCommand {
  bool all = false, ignore = false;
};

std::string secret_value(const std::string& source, bool env) {
  if (env) {
    const char* value = std::getenv(source.c_str());
    if (value == nullptr) throw_usage("secret create: the environment variable {} is not set", kelp::quoted(source));
    return value;
  }
  // One byte more than may be kept: create_secret() then says what is wrong.
  if (source == "-") return sys::read_rest(STDIN_FILENO, "standard input", 4 * store::kMaxSecret);
  auto text = sys::read_small_file(source, 4 * store::kMaxSecret);
  if (!text) throw_usage("secret create: there is no file {}", kelp::quoted(source));
  return std::move(*text);
}

int create(Invocation& invocation, CreateCommand& values) {
  const std::string source = invocation.arguments.size() > 1 ? invocation.arguments[1] : values.env ? "" : "-";
  if (source.empty()) throw_usage("secret create --env: the name of the variable is missing");
  if (source == "-" && !values.env && ::isatty(STDIN_FILENO) == 1)
    throw_usage("secret create: refusing to read a secret from a terminal: name a file, or pipe it in");
  values.request.name = invocation.arguments[0];
  values.request.value = secret_value(source, values.env);
  store::prepare(invocation.context.layout);
  const auto secret = store::create_secret(invocation.context.layout, values.request);
  engine::emit_event(invocation.context, "secret", "create", secret.id, secret.name);
  print_line(secret.id);
  return 0;
}

Json options_json(const store::StringMap& map) {
  Json json = Json::object();
  for (const auto& [key, value] : map) json[key] = value;
  return json;
}

/// podman's document. source: podman-secret-inspect(1)
Json describe(const store::SecretRecord& secret) {
  Json json;
  json["ID"] = secret.id;
  json["CreatedAt"] = format_rfc3339(secret.created);
  json["UpdatedAt"] = format_rfc3339(secret.updated);
  json["Spec"] = {{"Name", secret.name},
                  {"Driver", {{"Name", secret.driver}, {"Options", options_json(secret.driver_options)}}},
                  {"Labels", options_json(secret.labels)}};
  return json;
}

bool fits(const store::SecretRecord& secret, const Strings& filters) {
  bool names = false, name_fits = false, ids = false, id_fits = false;
  for (const auto& filter : filters) {
    const size_t equals = filter.find('=');
    const std::string key = filter.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : filter.substr(equals + 1);
    if (key == "name") {
      names = true;
      name_fits = name_fits || secret.name.find(value) != std::string::npos;
    } else if (key == "id") {
      ids = true;
      id_fits = id_fits || starts_with(secret.id, value);
    } else {
      throw_usage("--filter {}: unknown key; there are: id, name", kelp::quoted(filter));
    }
  }
  return (!names || name_fits) && (!ids || id_fits);
}

int list(Invocation& invocation, const ListCommand& values) {
  Json rows = Json::array(), json = Json::array();
  for (const auto& secret : store::list_secrets(invocation.context.layout)) {
    if (!fits(secret, values.filters)) continue;
    rows.push_back({{"ID", secret.id},
                    {"Name", secret.name},
                    {"Driver", secret.driver},
                    {"CreatedAt", age(secret.created)},
                    {"UpdatedAt", age(secret.updated)}});
    json.push_back(describe(secret));
  }
  ListFormat how;
  how.format = values.format;
  how.no_heading = values.no_heading;
  how.quiet = values.quiet;
  how.quiet_field = "ID";
  how.columns = {
      {"ID", "ID"}, {"Name", "NAME"}, {"Driver", "DRIVER"}, {"CreatedAt", "CREATED"}, {"UpdatedAt", "UPDATED"}};
  print(render_list(how, rows, &json));
  return 0;
}

std::string pretty(const store::SecretRecord& secret) {
  std::string text = "ID:              " + secret.id + "\nName:            " + secret.name + "\n";
  for (const auto& [key, value] : secret.labels) text += "Labels:          " + key + "=" + value + "\n";
  text += "Driver:          " + secret.driver + "\nCreated at:      " + go_time(secret.created) +
          "\nUpdated at:      " + go_time(secret.updated) + "\n";
  return text;
}

int inspect(Invocation& invocation, const InspectCommand& values) {
  const auto& layout = invocation.context.layout;
  if (values.pretty && !values.format.empty()) throw_usage("--pretty and --format exclude each other");
  Json objects = Json::array();
  std::string text;
  std::optional<UsageError> missing;
  for (const auto& word : invocation.arguments) {
    try {
      const auto secret = store::get_secret(layout, word);
      text += pretty(secret);
      objects.push_back(describe(secret));
      if (values.show) objects.back()["SecretData"] = store::read_secret(layout, secret);
    } catch (const UsageError& error) {
      if (missing) log::error("{}", missing->message());
      missing = error;
    }
  }
  if (values.pretty)
    print(text);
  else if (!objects.empty() || values.format.empty())
    print(render_objects(values.format, objects));
  if (missing) throw *missing;
  return 0;
}

int rm(Invocation& invocation, const RmCommand& values) {
  const auto& layout = invocation.context.layout;
  if (values.all == !invocation.arguments.empty()) throw_usage("secret rm needs either names or --all");
  Strings words = invocation.arguments;
  if (values.all)
    for (const auto& secret : store::list_secrets(layout)) words.push_back(secret.name);
  std::optional<UsageError> missing;
  for (const auto& word : words) {
    try {
      if (values.ignore && !store::find_secret(layout, word)) continue;
      const auto secret = store::get_secret(layout, word);
      store::remove_secret(layout, secret);
      engine::emit_event(invocation.context, "secret", "remove", secret.id, secret.name);
      print_line(secret.id);
    } catch (const UsageError& error) {
      if (missing) log::error("{}", missing->message());
      missing = error;
    }
  }
  if (missing) throw *missing;
  return 0;
}

}  // namespace

Action define_secret_create(OptionSet& options) {
  auto values = std::make_shared<CreateCommand>();
  options.arguments("NAME [FILE|-]", 1, 2, Complete::file);
  options.text("driver,d", values->driver, "NAME", "where secrets are kept").one_of({"file"}).shows("file");
  options.map("driver-opts", values->request.driver_options, "KEY=VALUE", "option of the driver, kept for inspect");
  options.map("label,l", values->request.labels, "KEY=VALUE", "label of the secret");
  options.flag("env", values->env, "take the value from the environment variable named instead of a file");
  options.flag("replace", values->request.replace, "replace a secret that has the name");
  options.flag("ignore", values->request.ignore, "do not mind a secret that is there already");
  options.describe({},
                   "kelp secret create password ./password.txt\nprintf %s \"$PASSWORD\" | kelp secret create password");
  return [values](Invocation& invocation) { return create(invocation, *values); };
}

Action define_secret_ls(OptionSet& options) {
  auto values = std::make_shared<ListCommand>();
  options.list("filter,f", values->filters, "KEY=VALUE", "secrets that fit: name=db, id=3f");
  options.text("format", values->format, "FORMAT", "json, table, or a Go template for each secret");
  options.flag("noheading,n", values->no_heading, "leave out the headings");
  options.flag("quiet,q", values->quiet, "show IDs only");
  return [values](Invocation& invocation) { return list(invocation, *values); };
}

Action define_secret_inspect(OptionSet& options) {
  auto values = std::make_shared<InspectCommand>();
  options.arguments("SECRET...", 1, -1, Complete::secret);
  options.text("format,f", values->format, "FORMAT", "json, or a Go template for each secret");
  options.flag("pretty", values->pretty, "as lines for people");
  options.flag("showsecret", values->show, "show the value too");
  return [values](Invocation& invocation) { return inspect(invocation, *values); };
}

Action define_secret_exists(OptionSet& options) {
  options.arguments("SECRET", 1, 1, Complete::secret);
  return [](Invocation& invocation) {
    return store::find_secret(invocation.context.layout, invocation.arguments[0]) ? 0 : 1;
  };
}

Action define_secret_rm(OptionSet& options) {
  auto values = std::make_shared<RmCommand>();
  options.arguments("SECRET...", 0, -1, Complete::secret);
  options.flag("all,a", values->all, "all secrets");
  options.flag("ignore,i", values->ignore, "do not mind secrets that are not there");
  return [values](Invocation& invocation) { return rm(invocation, *values); };
}

}  // namespace kelp::cli
