-- queue, whether it is paused
redis.call(ARGV[2] == '1' and 'SADD' or 'SREM', PAUSED, ARGV[1])
touch(ARGV[1])
return 1
