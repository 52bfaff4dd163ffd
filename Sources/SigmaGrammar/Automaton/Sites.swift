/// How far an object has come.
struct ObjectSite: Hashable {
    var rule: Int32
    /// The next place that may be written.
    var position: Int
    /// Members that surely differ, up to the fewest; and all, up to the most.
    var distinct = 0
    var total = 0
    var hasFree = false
    /// What the object needed has been written: nothing may follow.
    var isClosed = false
}

struct ArraySite: Hashable {
    var rule: Int32
    var progress: ArrayProgress
}

/// Progress of objects and arrays, numbered.
struct Sites {
    /// What may follow in an object.
    final class ObjectChoices {
        let canClose: Bool
        /// Places that may be written: from `first` to `last`, those that have a value.
        fileprivate(set) var first: Int
        fileprivate(set) var last: Int
        fileprivate(set) var hasNames = false
        /// Other members: key, value, and the site after them.
        fileprivate(set) var free: [(keys: RegexID, value: Int32, next: Int32)] = []

        init(canClose: Bool, first: Int, last: Int) {
            self.canClose = canClose
            self.first = first
            self.last = last
        }
    }

    final class ArrayChoices {
        let canClose: Bool
        fileprivate(set) var items: [(value: Int32, next: Int32)] = []

        init(canClose: Bool) { self.canClose = canClose }
    }

    private(set) var objects: [ObjectSite] = []
    private(set) var arrays: [ArraySite] = []
    private var objectNumbers: [ObjectSite: Int32] = [:]
    private var arrayNumbers: [ArraySite: Int32] = [:]
    private var objectChoices: [ObjectChoices?] = []
    private var arrayChoices: [ArrayChoices?] = []

    mutating func number(_ site: ObjectSite) -> Int32 {
        if let known = objectNumbers[site] { return known }
        let number = Int32(objects.count)
        objects.append(site)
        objectChoices.append(nil)
        objectNumbers[site] = number
        return number
    }

    mutating func number(_ site: ArraySite) -> Int32 {
        if let known = arrayNumbers[site] { return known }
        let number = Int32(arrays.count)
        arrays.append(site)
        arrayChoices.append(nil)
        arrayNumbers[site] = number
        return number
    }

    // MARK: Objects

    /// The site after the member at `place`.
    func behindMember(_ place: Int, of site: ObjectSite, in rule: ObjectRule) -> ObjectSite {
        var next = site
        next.position = place + 1
        next.distinct = min(site.distinct + 1, rule.min)
        if rule.max < Int.max { next.total = site.total + 1 }
        return next
    }

    private func behindFree(of site: ObjectSite, in rule: ObjectRule) -> ObjectSite {
        var next = site
        next.position = rule.values.count
        if !site.hasFree && rule.min > 0 {
            next.hasFree = true
            next.distinct = min(site.distinct + 1, rule.min)
        }
        if rule.max < Int.max { next.total = site.total + 1 }
        return next
    }

    func canFinish(_ site: ObjectSite, in rule: ObjectRule) -> Bool {
        let isNeedOpen = !rule.needs.isEmpty && !site.isClosed
        let required = rule.requiredAfter[site.position] + (isNeedOpen ? 1 : 0)
        let missing = rule.min - site.distinct
        if rule.max < Int.max && max(required, missing) > rule.max - site.total { return false }
        guard missing > 0 else { return true }
        if site.isClosed { return false }
        let mayAddFree = !site.hasFree && (!rule.regions.isEmpty || isNeedOpen)
        return rule.possibleAfter[site.position] + (mayAddFree ? 1 : 0) >= missing
    }

    mutating func choices(ofObject number: Int32, in rules: [ObjectRule]) -> ObjectChoices {
        if let known = objectChoices[Int(number)] { return known }
        let site = objects[Int(number)]
        let rule = rules[Int(site.rule)]
        let next = rule.nextRequired[site.position]
        let isPastRequired = next == rule.values.count
        let choices = ObjectChoices(
            canClose: isPastRequired && site.distinct >= rule.min && (rule.needs.isEmpty || site.isClosed),
            first: site.position, last: isPastRequired ? rule.values.count - 1 : next)
        if site.isClosed { choices.last = -1 }
        func isPossible(_ place: Int) -> Bool {
            rule.values[place] >= 0 && canFinish(behindMember(place, of: site, in: rule), in: rule)
        }
        // Skipping members can leave too few, so the last place that may be written is cut. Where only the required
        // members have room, all optional places before the next required one are cut.
        while choices.last >= choices.first && !isPossible(choices.last) { choices.last -= 1 }
        while choices.last >= choices.first && !isPossible(choices.first) { choices.first += 1 }
        choices.hasNames = choices.last >= choices.first
        if isPastRequired && !site.isClosed {
            let behind = behindFree(of: site, in: rule)
            if canFinish(behind, in: rule) {
                let next = self.number(behind)
                for region in rule.regions { choices.free.append((region.keys, region.value, next)) }
            }
            var closed = behind
            closed.isClosed = true
            if canFinish(closed, in: rule) {
                let next = self.number(closed)
                for need in rule.needs { choices.free.append((need.keys, need.value, next)) }
            }
        }
        objectChoices[Int(number)] = choices
        return choices
    }

    // MARK: Arrays

    mutating func choices(ofArray number: Int32, in rules: [ArrayRule]) -> ArrayChoices {
        if let known = arrayChoices[Int(number)] { return known }
        let site = arrays[Int(number)]
        let rule = rules[Int(site.rule)]
        let choices = ArrayChoices(canClose: rule.shape.canClose(site.progress))
        if rule.shape.canContinue(site.progress) {
            for (value, way) in rule.ways(at: site.progress.index) {
                guard let next = rule.shape.advance(site.progress, by: way),
                    rule.canComplete(from: next) == true
                else { continue }
                choices.items.append((value, self.number(ArraySite(rule: site.rule, progress: next))))
            }
        }
        arrayChoices[Int(number)] = choices
        return choices
    }
}
