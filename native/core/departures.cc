#include "departures.h"

#include <algorithm>
#include <unordered_map>

namespace derplane {

Departures::~Departures() {
  senders_.forEach([](const Sender& sender) {
    if (sender.listed > kFew) delete[] sender.many;
  });
}

// --- receivers ------------------------------------------------------------------------------------------------------

void Departures::note(Client& receiver, uint64_t sender) {
  sender = SenderSet::nonZero(sender);
  if (pairs_ >= kMaxPairs && receiver.senders.many() == nullptr && !receiver.senders.contains(sender)) {
    counters_.add(Counter::senders_forgotten);
    return;
  }
  switch (receiver.senders.note(sender)) {
    case SenderSet::Noted::kKnown:
      break;
    case SenderSet::Noted::kNew:
      addReceiver(sender, receiver.slot);
      break;
    case SenderSet::Noted::kTooMany:
      makeMany(receiver, sender);
      break;
  }
}

void Departures::makeMany(Client& receiver, uint64_t sender) {
  receiver.senders.forEach([this](uint64_t known) { removeReceiver(known); });
  auto many = std::make_unique<ManySenders>();
  many->client = &receiver;
  many_.pushFront(*many);
  receiver.senders.becomeMany(std::move(many));
  receiver.senders.note(sender);
}

void Departures::receiverLeft(Client& receiver) {
  if (ManySenders* many = receiver.senders.many()) {
    if (next_many_ == many) next_many_ = many_.next(*many);
    many_.remove(*many);
  } else {
    receiver.senders.forEach([this](uint64_t sender) { removeReceiver(sender); });
  }
}

void Departures::addReceiver(uint64_t hash, uint32_t slot) {
  ++pairs_;
  Sender* sender = find(hash);
  if (sender == nullptr) {
    Sender fresh{};
    fresh.hash = hash;
    sender = &senders_.insert(hash, fresh);
  }
  const uint32_t count = sender->listed;
  if (count == capacityFor(count)) {
    uint32_t* slots = new uint32_t[capacityFor(count + 1)];
    std::copy_n(sender->slots(), count, slots);
    if (count > kFew) delete[] sender->many;
    sender->many = slots;
  }
  ++sender->listed;
  ++sender->live;
  sender->slots()[count] = slot;
}

// A client that knew the sender left or forgot it.
void Departures::removeReceiver(uint64_t hash) {
  --pairs_;
  Sender* sender = find(hash);
  --sender->live;
  if (sender->leaving > 0) return;
  if (sender->live > 0 && sender->listed > 2 * sender->live + kFew) purge(*sender);
  eraseIfUnused(sender);
}

void Departures::setSlots(Sender& sender, const uint32_t* slots, uint32_t count) {
  uint32_t* before = sender.listed > kFew ? sender.many : nullptr;
  uint32_t few[kFew];
  uint32_t* to = count > kFew ? new uint32_t[capacityFor(count)] : few;
  std::copy_n(slots, count, to);
  delete[] before;
  sender.listed = count;
  if (count > kFew) {
    sender.many = to;
  } else {
    std::copy_n(few, count, sender.few);
  }
}

// Takes out the slots whose clients do not know the sender, and those that stand there twice.
void Departures::purge(Sender& sender) {
  uint32_t* first = sender.slots();
  uint32_t* last = std::remove_if(first, first + sender.listed, [&](uint32_t slot) {
    return slots_[slot] == nullptr || !slots_[slot]->senders.contains(sender.hash);
  });
  std::sort(first, last);
  last = std::unique(first, last);
  const std::vector<uint32_t> left(first, last);
  setSlots(sender, left.data(), static_cast<uint32_t>(left.size()));
}

void Departures::eraseIfUnused(Sender* sender) {
  if (sender->live > 0 || sender->leaving > 0) return;
  if (sender->listed > kFew) delete[] sender->many;
  senders_.erase(sender);
}

// --- keys that leave -------------------------------------------------------------------------------------------------

void Departures::keyLeft(const Key& key, uint64_t hash) {
  hash = SenderSet::nonZero(hash);
  Sender* sender = find(hash);
  if (sender != nullptr) {
    const bool waits = sender->leaving > 0;
    sender->leaving = sender->listed;
    if (waits) return;  // it came back and left again: its new receivers join those still to be told
  } else if (many_.empty() || waiting_.size() >= kMaxWaiting) {
    return;
  }
  waiting_.push_back({key, hash});
}

// All were told, except of those who heard of the sender again since.
void Departures::endLeaving(Sender* sender) {
  const uint32_t left = sender->listed - sender->leaving;
  const std::vector<uint32_t> rest(sender->slots() + sender->leaving, sender->slots() + sender->listed);
  sender->leaving = 0;
  setSlots(*sender, rest.data(), left);
  eraseIfUnused(sender);
}

const char* Departures::check() const {
  std::unordered_map<uint64_t, uint32_t> known;
  uint64_t pairs = 0;
  for (const Client* client : slots_) {
    if (client == nullptr) continue;
    client->senders.forEach([&](uint64_t sender) {
      ++known[sender];
      ++pairs;
    });
  }
  const char* wrong = pairs == pairs_ ? nullptr : "senders and receivers are counted wrong";
  size_t used = 0;
  senders_.forEach([&](const Sender& sender) {
    const auto it = known.find(sender.hash);
    if (sender.live != (it == known.end() ? 0 : it->second)) wrong = "a sender does not know its receivers";
    if (sender.live == 0 && sender.leaving == 0) wrong = "a sender without receivers is kept";
    used += sender.live > 0 ? 1 : 0;
  });
  return used == known.size() ? wrong : "a client knows a sender that does not know it";
}

}  // namespace derplane
