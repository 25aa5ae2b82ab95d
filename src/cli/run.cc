#include <fcntl.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/options_run.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/trace.h"
#include "engine/create.h"
#include "engine/events.h"
#include "engine/remove.h"
#include "engine/run.h"
#include "engine/settings.h"
#include "engine/trace.h"
#include "store/containers.h"
#include "store/images.h"
#include "store/prune.h"

namespace kelp::cli {
namespace {

struct RunCommand : RunOptions {
  bool detach = false, sig_proxy = true, die_with_parent = false;
  std::string detach_keys = "ctrl-p,ctrl-q";
  std::vector<int> preserved;  ///< --preserve-fd
  std::string trace;           ///< --trace: "", text or json
};

/// --replace: whatever has the name goes first.
void remove_namesake(Invocation& invocation, const RunOptions& values) {
  if (!values.replace) return;
  const auto holder = store::id_of_name(invocation.context.layout, values.config.name);
  const auto old = holder ? store::find(invocation.context.layout, *holder) : std::nullopt;
  if (!old || old->name != values.config.name) return;
  engine::RemoveOptions removal;
  removal.force = removal.volumes = true;
  engine::remove_container(invocation.context, *old, removal);
}

/// --preserve-fds: those that the caller left open for us. What we have opened ourselves is closed on exec.
void check_preserved(unsigned count) {
  for (int fd = 3; fd < 3 + static_cast<int>(count); ++fd) {
    const int flags = ::fcntl(fd, F_GETFD);
    if (flags < 0 || (flags & FD_CLOEXEC) != 0) throw_usage("--preserve-fds {}: descriptor {} is not open", count, fd);
  }
}

/// --preserve-fd: the others below the highest one stay with us.
void keep_preserved(RunCommand& values) {
  if (values.preserved.empty()) return;
  if (values.config.preserve_fds != 0) throw_usage("--preserve-fd and --preserve-fds exclude each other");
  const int highest = *std::max_element(values.preserved.begin(), values.preserved.end());
  for (int fd = 3; fd <= highest; ++fd) {
    const bool wanted = std::find(values.preserved.begin(), values.preserved.end(), fd) != values.preserved.end();
    const int flags = ::fcntl(fd, F_GETFD);
    if (wanted && (flags < 0 || (flags & FD_CLOEXEC) != 0)) throw_usage("--preserve-fd {}: it is not open", fd);
    if (!wanted && flags >= 0) ::fcntl(fd, F_SETFD, flags | FD_CLOEXEC);
  }
  values.config.preserve_fds = static_cast<unsigned>(highest - 2);
}

/// --rmi: another container may use the image, then it stays.
void remove_image_of(Invocation& invocation, const store::ContainerRecord& record) {
  const auto& layout = invocation.context.layout;
  for (const auto& other : store::list(layout))
    if (other.image_id == record.image_id) return;
  if (!store::remove_image(layout, record.image_id, true, {})) return;
  engine::emit_event(invocation.context, "image", "remove", record.image_id, record.image_name);
  store::try_sweep_images(layout);
  engine::sweep_trash(invocation.context);
}

engine::NewContainer create(Invocation& invocation, RunOptions& values, const OptionSet& options) {
  apply_hardened(values, options);
  const std::string image = finish_run_options(values, invocation.arguments, invocation.command_line);
  remove_namesake(invocation, values);
  if (values.config.networks.empty())
    values.config.networks = engine::load_settings(invocation.context.global.modules).networks;
  ProgressView progress(values.quiet);
  return engine::create_container(invocation.context, values.config, image, values.pull, progress.callback());
}

/// Which streams the terminal is connected to: output or what -a says, and input with -i.
engine::StartOptions start_options(const RunCommand& values) {
  engine::StartOptions start;
  start.foreground = !values.detach;
  start.sig_proxy = values.sig_proxy;
  start.die_with_parent = values.die_with_parent;
  start.detach_keys = values.detach_keys;
  start.preserve_fds = values.config.preserve_fds;
  if (values.detach) return start;
  start.attach_stdin = values.config.interactive;
  if (values.config.attach.empty()) start.attach_stdout = start.attach_stderr = true;
  for (const auto& stream : values.config.attach) {
    if (stream == "stdin") start.attach_stdin = true;
    if (stream == "stdout") start.attach_stdout = true;
    if (stream == "stderr") start.attach_stderr = true;
  }
  return start;
}

/// A program that cannot live with --hardened is told from one that fails by itself by its last words.
void tell_hardened(const store::ContainerRecord& record, std::string_view words) {
  const std::string part = hardened_part(record.config, words);
  if (!part.empty()) print_beside(fmt::format("hint: --hardened: {}\n", part));
}

struct Started {
  store::ContainerRecord record;
  engine::StartResult result;
};

Started create_and_start(Invocation& invocation, RunCommand& values, const OptionSet& options) {
  auto start = start_options(values);
  std::optional<engine::StartTrace> trace;
  const auto tell = [&trace, &values] {
    if (trace) print_beside(render_trace(trace->finish(), values.trace == "json"));
    trace.reset();
  };
  if (!values.trace.empty()) {
    start.trace = &trace.emplace();
    start.started = tell;
  }
  std::string words;
  if (values.hardened) start.last_words = &words;
  try {
    auto [record, lock] = create(invocation, values, options);
    // With -a stdin alone, as podman does: nothing else is to be seen of the container.
    if (!values.detach && !start.attach_stdout && !start.attach_stderr) print_line(record.id);
    const auto result = engine::start_container(invocation.context, record, start, std::move(lock));
    if (values.hardened && result.exit_code != 0) tell_hardened(record, words);
    return {std::move(record), result};
  } catch (Error& error) {
    tell();  // how far it came
    const std::string part = values.hardened ? hardened_part(values.config, error.message()) : "";
    if (error.hint().empty() && !part.empty()) error.with_hint("--hardened: " + part);
    throw;
  }
}

int run(Invocation& invocation, RunCommand& values, const OptionSet& options) {
  check_preserved(values.config.preserve_fds);
  keep_preserved(values);
  if (values.config.remove_image && values.detach)
    throw_usage("--rmi and --detach exclude each other: nobody is there to remove the image at the end");
  values.config.detach = values.detach;
  values.config.detach_keys = values.detach_keys;
  values.config.sig_proxy = values.sig_proxy;
  if (values.config.tty && !values.detach && !stdin_is_terminal() && values.config.interactive) {
    log::warn("standard input is no terminal: what it holds is passed to the container's terminal as it is");
  }
  const auto [record, result] = create_and_start(invocation, values, options);
  if (values.detach) print_line(record.id);
  if (values.config.remove_image && !result.detached) remove_image_of(invocation, record);
  return result.exit_code;
}

int create_only(Invocation& invocation, RunOptions& values, const OptionSet& options) {
  const auto record = create(invocation, values, options).record;
  print_line(record.id);
  return 0;
}

}  // namespace

Action define_run(OptionSet& options) {
  auto values = std::make_shared<RunCommand>();
  add_run_options(options, *values);
  options.group("Container");
  options.flag("detach,d", values->detach, "run in the background and print the ID");
  options.flag("die-with-parent", values->die_with_parent,
               "kill the container when kelp is killed or its caller ends; with --detach: when the caller ends");
  options.custom(
      "preserve-fd", Kind::csv,
      [values = values.get()](const std::string& text) {
        for (const auto& word : split_csv(text, "--preserve-fd")) {
          const auto fd = to_int(word, 3, 150);
          if (!fd) throw_usage("--preserve-fd {}: descriptors from 3 on are possible", quoted(text));
          values->preserved.push_back(static_cast<int>(*fd));
        }
      },
      "N", "pass this descriptor under its number");
  options.custom(
      "rmi", Kind::flag,
      [values = values.get()](const std::string& text) {
        values->config.remove_image = *to_bool(text);
        if (values->config.remove_image) values->config.remove = true;
      },
      "", "remove the container and, unless another one uses it, its image when it ends");
  options.text("trace", values->trace, "FORMAT", "tell the seven steps of the start and their microseconds on stderr")
      .one_of({"text", "json"})
      .implies("text");
  options.flag("sig-proxy", values->sig_proxy, "pass signals on to the process").shows("true");
  options
      .custom(
          "detach-keys", Kind::text,
          [values = values.get()](const std::string& text) { values->detach_keys = check_detach_keys(text); }, "KEYS",
          "keys that leave the container running")
      .shows("ctrl-p,ctrl-q");
  options.describe({},
                   "kelp run --rm -it debian\n"
                   "kelp run -d --name web -p 8080:80 nginx\n"
                   "kelp run --rm -v .:/src -w /src gcc make");
  return [values, &options](Invocation& invocation) { return run(invocation, *values, options); };
}

Action define_create(OptionSet& options) {
  auto values = std::make_shared<RunOptions>();
  add_run_options(options, *values);
  return [values, &options](Invocation& invocation) { return create_only(invocation, *values, options); };
}

}  // namespace kelp::cli
