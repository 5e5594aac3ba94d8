-- Takes from the cells of one request, by this server's clock. KEYS: cells. ARGV, five for each: the group that it is of, how
-- it counts ("bucket", "fixed", "sliding"), its window or a bucket's interval in microseconds, its limit or a bucket's
-- capacity, and the cost. A group takes from all of its cells or from none.
-- Returns four numbers for each cell: 1 if the request passes, how many more may, microseconds until all that is ever allowed
-- is allowed again, and microseconds until the request would pass.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

-- All meters return: whether it passes, remaining, reset, wait, what to keep, and for how many microseconds.

local function bucket(known, interval, capacity, cost)
    -- Kept: what is owed in microseconds, and since when.
    local room, owed = interval * capacity, 0
    if known[1] then
        owed = math.max(0, known[1] - math.max(0, now - known[2]))
    end
    local later = owed + interval * cost
    -- A millionth of a request is an error of rounding.
    local passes = later <= room + interval / 1000000 or cost == 0
    local left = passes and later or owed
    local remaining = math.floor(math.max(0, room - left) / interval + 0.000001)
    return passes, remaining, left, passes and 0 or later - room, {later, now}, later
end

local function against(limit, counted, cost)
    local passes = counted + cost <= limit or cost == 0
    if passes then
        counted = counted + cost
    end
    return passes, math.max(0, limit - counted)
end

local function fixed(known, window, limit, cost)
    -- Kept: the count, and of which window.
    local index = math.floor(now / window)
    local rest, counted = (index + 1) * window - now, 0
    if known[2] == index then
        counted = known[1]
    end
    local passes, remaining = against(limit, counted, cost)
    return passes, remaining, rest, passes and 0 or rest, {counted + cost, index}, rest
end

local function sliding(known, window, limit, cost)
    -- Kept: the counts of the window before and of the present one, and which that is.
    local index = math.floor(now / window)
    local rest, before, present = (index + 1) * window - now, 0, 0
    if known[3] == index then
        before, present = known[1], known[2]
    elseif known[3] == index - 1 then
        before = known[2]
    end
    local old = math.ceil(before * rest / window)
    local passes, remaining = against(limit, old + present, cost)
    -- Until so little of a window's count is left in the last window's length that it leaves room.
    local function wait_for(rest, count, room)
        return rest - math.min(window, math.floor(window * room / math.max(1, count)))
    end
    local wait, room = 0, limit - present - cost
    if not passes and room >= 0 then
        wait = math.max(0, wait_for(rest, before, room))
    elseif not passes then
        wait = wait_for(rest + window, present, math.max(0, limit - cost))
    end
    return passes, remaining, rest, wait, {before, present + cost, index}, rest + window
end

local meters = {bucket = bucket, fixed = fixed, sliding = sliding}
local answer, kept, refused = {}, {}, {}
for i = 1, #KEYS do
    local at = 5 * i - 4
    local group, span, limit, cost = ARGV[at], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
    local known = {}
    for number in string.gmatch(redis.call('GET', KEYS[i]) or '', '%S+') do
        known[#known + 1] = tonumber(number)
    end
    local passes, remaining, reset, wait, keep, expires = meters[ARGV[at + 1]](known, span, limit, cost)
    for _, number in ipairs({passes and 1 or 0, remaining, reset, wait}) do
        -- Integers below 2^53.
        answer[#answer + 1] = math.min(math.ceil(number), 9007199254740991)
    end
    if not passes then
        refused[group] = true
    end
    if cost > 0 then
        kept[#kept + 1] = {i, group, keep, expires}
    end
end
for _, cell in ipairs(kept) do
    if not refused[cell[2]] then
        local numbers = {}
        for n, number in ipairs(cell[3]) do
            numbers[n] = string.format('%.17g', number)
        end
        -- In milliseconds; ten years at most.
        local expires = math.max(1, math.min(math.ceil(cell[4] / 1000), 315576000000))
        redis.call('SET', KEYS[cell[1]], table.concat(numbers, ' '), 'PX', string.format('%.0f', expires))
    end
end
return answer
