#include "departures.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

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
  } else if (receiver.senders.size() > kForgottenAtOnce) {
    left_.push_back({std::exchange(receiver.senders, {})});
  } else {
    receiver.senders.forEach([this](uint64_t sender) { removeReceiver(sender); });
  }
}

// A bounded part of what clients that left still know; true when there was any.
bool Departures::forgetLeft() {
  if (left_.empty()) return false;
  Left& first = left_.front();
  first.next = first.senders.forEachFrom(first.next, kPlacesPerStep, [this](uint64_t known) { removeReceiver(known); });
  if (first.next == 0) left_.pop_front();
  return true;
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
  ++removed_;
  Sender* sender = find(hash);
  --sender->live;
  purgeIfSparse(*sender);
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

// While a sender leaves, its list stays as it is; endLeaving looks again.
void Departures::purgeIfSparse(Sender& sender) {
  if (sender.leaving > 0 || sender.purging || sender.live == 0 || sender.listed <= 2 * sender.live + kFew) return;
  sender.purging = 1;
  purges_.push_back(sender.hash);
}

// Goes on with taking out of sparse lists the slots whose clients do not know the sender; true when there are any.
bool Departures::purge() {
  const bool any = !purges_.empty();
  uint32_t budget = kPurgedPerStep + kPurgedPerRemoval * std::exchange(removed_, 0);
  while (budget > 0 && !purges_.empty()) budget = purgeFirst(budget);
  return any;
}

// Returns what is left of the budget. Between two steps the list has places that were moved and still stand behind: a
// slot that appears twice is notified once, which is harmless.
uint32_t Departures::purgeFirst(uint32_t budget) {
  Sender* sender = find(purges_.front());
  if (sender->leaving == 0) {
    const bool is_short = sender->listed <= kSearched;
    if (purge_from_ == 0 || is_short != purge_searches_) {  // it begins, or begins again since the list has grown
      purge_from_ = purge_to_ = 0;
      purge_searches_ = is_short;
      if (!is_short) seen_.assign(slots_.size() / 64 + 1, 0);
    }
    uint32_t* slots = sender->slots();
    const auto is_twice = [&](uint32_t slot) {
      return is_short ? std::find(slots, slots + purge_to_, slot) != slots + purge_to_ : isSeen(slot);
    };
    for (; purge_from_ < sender->listed; ++purge_from_, --budget) {
      if (budget == 0) return 0;
      const uint32_t slot = slots[purge_from_];
      const Client* client = slots_[slot];
      if (client == nullptr || !client->senders.contains(sender->hash) || is_twice(slot)) continue;
      slots[purge_to_++] = slot;
    }
    setSlots(*sender, slots, purge_to_);
  }
  sender->purging = 0;
  purges_.pop_front();
  purge_from_ = purge_to_ = 0;
  eraseIfUnused(sender);
  return budget == 0 ? 0 : budget - 1;
}

// Whether this purge has found the slot before.
bool Departures::isSeen(uint32_t slot) {
  if (slot / 64 >= seen_.size()) seen_.resize(slots_.size() / 64 + 1);  // clients came meanwhile
  const uint64_t bit = uint64_t{1} << (slot % 64);
  return (std::exchange(seen_[slot / 64], seen_[slot / 64] | bit) & bit) != 0;
}

void Departures::eraseIfUnused(Sender* sender) {
  if (sender->live > 0 || sender->leaving > 0 || sender->purging) return;
  if (sender->listed > kFew) delete[] sender->many;
  senders_.erase(sender);
}

// --- keys that leave -------------------------------------------------------------------------------------------------

void Departures::keyLeft(const Key& key, uint64_t hash) {
  hash = SenderSet::nonZero(hash);
  Sender* sender = find(hash);
  if (sender != nullptr) {
    // The list is worked off in its order, so a purge that has begun begins again later.
    if (sender->purging && purges_.front() == hash) purge_from_ = purge_to_ = 0;
    if (sender->leaving > 0) {
      // It came back and left again. Its new receivers join those that have not heard yet. They wait for their own turn
      // while the others hear of it: else a key that comes and goes would keep all others waiting.
      if (waiting_.front().hash == hash && told_ > 0) {
        sender->leaving_again = sender->listed & kMaxListed;
      } else {
        sender->leaving = sender->listed;
      }
      return;
    }
    sender->leaving = sender->listed;
  } else if (many_.empty() || waiting_.size() >= kMaxWaiting) {
    return;
  }
  waiting_.push_back({key, hash});
}

// All have heard, except receivers that heard from the sender again since.
void Departures::endLeaving(Sender* sender) {
  const uint32_t told = sender->leaving;
  const std::vector<uint32_t> rest(sender->slots() + told, sender->slots() + sender->listed);
  sender->leaving = sender->leaving_again > told ? sender->leaving_again - told : 0;
  sender->leaving_again = 0;
  setSlots(*sender, rest.data(), static_cast<uint32_t>(rest.size()));
  if (sender->leaving > 0) waiting_.push_back(waiting_.front());
  purgeIfSparse(*sender);
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
  for (const Left& left : left_) {
    left.senders.forEachFrom(left.next, SIZE_MAX, [&](uint64_t sender) {
      ++known[sender];
      ++pairs;
    });
  }
  const char* wrong = pairs == pairs_ ? nullptr : "senders and receivers are counted wrong";
  size_t used = 0;
  senders_.forEach([&](const Sender& sender) {
    const auto it = known.find(sender.hash);
    if (sender.live != (it == known.end() ? 0 : it->second)) wrong = "a sender does not know its receivers";
    if (sender.live == 0 && sender.leaving == 0 && !sender.purging) wrong = "a sender without receivers is kept";
    used += sender.live > 0 ? 1 : 0;
  });
  return used == known.size() ? wrong : "a client knows a sender that does not know it";
}

}  // namespace derplane
