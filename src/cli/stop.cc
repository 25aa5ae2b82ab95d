#include "engine/stop.h"

#include <chrono>
#include <memory>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/container_select.h"
#include "cli/output.h"
#include "store/containers.h"
#include "sys/signals.h"

namespace kelp::cli {
namespace {

constexpr const char* kNeedsContainer = "the name or ID of a container";

struct StopCommand {
  ContainerChoice choice;
  std::optional<unsigned> time;
};

struct KillCommand {
  ContainerChoice choice;
  std::string signal = "KILL";
};

struct WaitCommand {
  bool latest = false, ignore = false, first = false;
  Strings conditions;
  std::chrono::nanoseconds interval = std::chrono::milliseconds(250);
};

int stop(Invocation& invocation, const StopCommand& values) {
  ContainerSelection selection(invocation, values.choice, kNeedsContainer);
  return selection.for_each([&](const Chosen& chosen) {
    engine::stop_container(invocation.context, chosen.record, values.time);
    print_line(chosen.word);
  });
}

int kill(Invocation& invocation, const KillCommand& values) {
  const bool dashed = values.signal.size() > 1 && values.signal.front() == '-';  // as kill(1) takes it: -9, -HUP
  const int signal = sys::signal_from_name(std::string_view(values.signal).substr(dashed ? 1 : 0));
  ContainerChoice choice = values.choice;
  choice.running = choice.all;
  ContainerSelection selection(invocation, choice, kNeedsContainer);
  return selection.for_each([&](const Chosen& chosen) {
    engine::kill_container(invocation.context, chosen.record, signal);
    print_line(chosen.word);
  });
}

int wait(Invocation& invocation, const WaitCommand& values) {
  ContainerChoice choice;
  choice.latest = values.latest;
  choice.ignore = values.ignore;
  ContainerSelection selection(invocation, choice, kNeedsContainer);
  const auto interval = std::chrono::duration_cast<std::chrono::milliseconds>(values.interval);
  if (values.ignore && selection.chosen().size() < invocation.arguments.size()) print_line("-1");
  if (values.first && selection.chosen().size() > 1) {
    std::vector<store::ContainerRecord> records;
    for (const auto& chosen : selection.chosen()) records.push_back(chosen.record);
    print_line(fmt::format("{}", engine::wait_for_any(invocation.context, records, values.conditions, interval)));
    return selection.for_each([](const Chosen&) {});
  }
  return selection.for_each([&](const Chosen& chosen) {
    const int code = engine::wait_container(invocation.context, chosen.record, values.conditions, interval);
    print_line(fmt::format("{}", code));
  });
}

/// A state that --condition knows. source: podman-wait(1)
std::string check_condition(const std::string& text) {
  static constexpr const char* kStates[] = {"configured", "created", "exited",  "healthy",  "initialized", "paused",
                                            "removing",   "running", "stopped", "stopping", "unhealthy"};
  for (const char* state : kStates) {
    if (text == state) return text;
  }
  throw_usage("--condition: unknown state {}; there are: {}", quoted(text),
              join(Strings(std::begin(kStates), std::end(kStates)), ", "));
}

}  // namespace

Action define_stop(OptionSet& options) {
  auto values = std::make_shared<StopCommand>();
  options.arguments("CONTAINER...", 0, -1, Complete::running);
  options.number("time,t", values->time, "SECONDS", "time between the stop signal and SIGKILL").shows("10");
  ContainerChoiceOptions which;
  which.ignore = true;
  add_container_choice(options, values->choice, which);
  return [values](Invocation& invocation) { return stop(invocation, *values); };
}

Action define_kill(OptionSet& options) {
  auto values = std::make_shared<KillCommand>();
  options.arguments("CONTAINER...", 0, -1, Complete::running);
  options.text("signal,s", values->signal, "SIGNAL", "signal to send, by name or number")
      .complete(Complete::signal)
      .shows("KILL");
  ContainerChoiceOptions which;
  which.filter = false;
  which.all_help = "all running containers";
  add_container_choice(options, values->choice, which);
  return [values](Invocation& invocation) { return kill(invocation, *values); };
}

Action define_wait(OptionSet& options) {
  auto values = std::make_shared<WaitCommand>();
  options.arguments("CONTAINER...", 0, -1, Complete::container);
  options
      .custom(
          "condition", Kind::csv,
          [values = values.get()](const std::string& text) {
            for (const auto& word : split_csv(text, "--condition")) {
              values->conditions.push_back(check_condition(word));
            }
          },
          "STATE", "state to wait for")
      .shows("stopped");
  options
      .custom(
          "interval,i", Kind::duration,
          [values = values.get()](const std::string& text) {
            values->interval = parse_duration(text, "--interval", std::chrono::milliseconds(1));
          },
          "DURATION", "time between two looks where no event can be waited for")
      .shows("250ms");
  options.flag("ignore", values->ignore, "do not mind containers that are not there");
  options.flag("exit-first-match", values->first, "end with the first container that is in the state");
  add_latest(options, values->latest);
  return [values](Invocation& invocation) { return wait(invocation, *values); };
}

Action define_pause(OptionSet& options) {
  auto choice = std::make_shared<ContainerChoice>();
  options.arguments("CONTAINER...", 0, -1, Complete::running);
  ContainerChoiceOptions which;
  which.all_help = "all running containers";
  add_container_choice(options, *choice, which);
  return [choice](Invocation& invocation) {
    ContainerChoice wanted = *choice;
    wanted.running = wanted.all;
    ContainerSelection selection(invocation, wanted, kNeedsContainer);
    return selection.for_each([&](const Chosen& chosen) {
      engine::pause_container(invocation.context, chosen.record);
      print_line(chosen.word);
    });
  };
}

Action define_unpause(OptionSet& options) {
  auto choice = std::make_shared<ContainerChoice>();
  options.arguments("CONTAINER...", 0, -1, Complete::paused);
  ContainerChoiceOptions which;
  which.all_help = "all paused containers";
  add_container_choice(options, *choice, which);
  return [choice](Invocation& invocation) {
    ContainerChoice wanted = *choice;
    if (wanted.all) wanted.filters.emplace_back("status=paused");
    ContainerSelection selection(invocation, wanted, kNeedsContainer);
    return selection.for_each([&](const Chosen& chosen) {
      engine::unpause_container(invocation.context, chosen.record);
      print_line(chosen.word);
    });
  };
}

}  // namespace kelp::cli
