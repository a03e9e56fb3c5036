// The figures of a relay that no shard counts, as JavaScript reads them.
#include "env.h"
#include "relay_wrap.h"

namespace derplane {

Napi::Value RelayWrap::getHandshakes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(core_->budget.handshakes()));
}

Napi::Value RelayWrap::getRefused(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(core_->budget.refused()));
}

Napi::Value RelayWrap::getRefusedByLimit(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(core_->accept_limit.refused()));
}

Napi::Value RelayWrap::getRefusedBytes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(core_->budget.refusedBytes()));
}

Napi::Value RelayWrap::getEvicted(const Napi::CallbackInfo& info) {
  const auto counts = Napi::Array::New(info.Env());
  for (uint32_t i = 0; i < static_cast<uint32_t>(Eviction::kCount); ++i) {
    counts.Set(i, static_cast<double>(core_->budget.evicted(static_cast<Eviction>(i))));
  }
  return counts;
}

Napi::Value RelayWrap::getMute(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(core_->budget.mute()));
}

Napi::Value RelayWrap::getWaitingHandshakes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(core_->waitingHandshakes()));
}

Napi::Value RelayWrap::getAccepts(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(core_->accepts.load(std::memory_order_relaxed)));
}

Napi::Value RelayWrap::getTlsCounts(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto counts = Napi::Object::New(env);
  const auto set = [&](const char* name, const auto& count) {
    counts.Set(name, Napi::Number::New(env, static_cast<double>(count.load(std::memory_order_relaxed))));
  };
  set("accepted", core_->tls_accepted);
  set("rejected", core_->tls_rejected);
  set("upgrades12", core_->accepts_tls12);
  set("upgrades13", core_->accepts_tls13);
  set("greeted12", core_->greeted_tls12);
  set("greeted13", core_->greeted_tls13);
  return counts;
}

Napi::Value RelayWrap::getFailures(const Napi::CallbackInfo& info) {
  const auto counts = Napi::Array::New(info.Env(), RelayCore::kMaxFailures);
  for (uint32_t i = 0; i < RelayCore::kMaxFailures; ++i) {
    counts.Set(i,
               Napi::Number::New(info.Env(), static_cast<double>(core_->failures[i].load(std::memory_order_relaxed))));
  }
  return counts;
}

Napi::Value RelayWrap::getLabels(const Napi::CallbackInfo& info) {
  const std::vector<std::string> labels = core_->labels();
  const auto list = Napi::Array::New(info.Env(), labels.size());
  for (uint32_t i = 0; i < labels.size(); ++i) list.Set(i, labels[i]);
  return list;
}

Napi::Value RelayWrap::getLabelsRefused(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(core_->labels_refused.load(std::memory_order_relaxed)));
}

Napi::Value RelayWrap::getLostEvents(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(core_->lost_events.load(std::memory_order_relaxed)));
}

}  // namespace derplane
